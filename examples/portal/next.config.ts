import type { NextConfig } from "next";

const config: NextConfig = {
  output: "export",
  // A folder with an index.html per page: every static host serves it.
  trailingSlash: true,
  images: { unoptimized: true },
  reactStrictMode: true,
  poweredByHeader: false,
  // The repository has other lock files above.
  outputFileTracingRoot: import.meta.dirname,
  turbopack: { root: import.meta.dirname },
};

export default config;
