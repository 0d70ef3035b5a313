/** Replies kept by what was asked, of one version of the atlas, the oldest given up first. */

import { newestVersion } from "./client";

const KEPT = 64;

/** Promises of replies; one that fails is not kept. */
export class Cache {
  readonly #kept = new Map<string, Promise<unknown>>();
  #version = "";

  constructor(private readonly most: number = KEPT) {}

  /**
   * The reply kept under a key, else that of `load`, which several callers then share.
   *
   * A load is not aborted, as others may wait for it; `signal` only ends this caller's wait.
   */
  async get<T>(key: string, load: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    this.#forgetOthers();
    const promise = (this.#kept.get(key) as Promise<T> | undefined) ?? this.#keep(key, load());
    this.#touch(key, promise);
    const value = await promise;
    signal?.throwIfAborted();
    return value;
  }

  #keep<T>(key: string, promise: Promise<T>): Promise<T> {
    promise.catch(() => {
      if (this.#kept.get(key) === promise) this.#kept.delete(key);
    });
    return promise;
  }

  #touch(key: string, promise: Promise<unknown>): void {
    this.#kept.delete(key);
    this.#kept.set(key, promise);
    const oldest = this.#kept.keys().next();
    if (this.#kept.size > this.most && !oldest.done) this.#kept.delete(oldest.value);
  }

  #forgetOthers(): void {
    // Peeked at: an effect that asks would else run again at every new version.
    const newest = newestVersion.peek();
    if (this.#version === newest) return;
    if (this.#version !== "") this.#kept.clear();
    this.#version = newest;
  }
}
