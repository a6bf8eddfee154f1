// esbuild bundles style sheets that are imported; nothing comes out of such an import.
declare module '*.css';
