/** The page's own address: with a token and without. */

const TOKEN_PART = /\/t\/[^/]+\/$/;

/** The path of a page without the token that leads to it: `/a/t/TOKEN/` is `/a/`. */
export function withoutToken(pathname: string): string {
  return pathname.replace(TOKEN_PART, "/");
}

/** True where a token leads to the page. */
export function hasToken(pathname: string): boolean {
  return TOKEN_PART.test(pathname);
}

/** The path of a page to which a token leads. */
export function withToken(pathname: string, token: string): string {
  return `${withoutToken(pathname)}t/${encodeURIComponent(token)}/`;
}

/** The link to share: this address, never with the token. */
export function writeLink(): string {
  return location.origin + withoutToken(location.pathname) + location.search + location.hash;
}
