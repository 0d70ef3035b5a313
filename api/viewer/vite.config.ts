import { defineConfig } from "vitest/config";

/** The service that `npm run dev` passes requests on to. */
const SERVICE = process.env["QKATLAS_URL"] ?? "http://127.0.0.1:8765";

export default defineConfig({
  base: "./",
  build: {
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
  },
  server: {
    proxy: Object.fromEntries(
      ["/v1", "/readyz"].map((path) => [path, { target: SERVICE, changeOrigin: true }]),
    ),
  },
  test: { environment: "happy-dom", include: ["src/**/*.test.{ts,tsx}"] },
});
