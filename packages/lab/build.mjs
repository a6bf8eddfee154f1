// Builds the page at /lab: `../page/build.mjs` says how, and what the command line takes. Nothing of others is bundled.

import { fileURLToPath } from 'node:url';
import esbuild from 'esbuild';
import { page } from '../page/build.mjs';

const folder = fileURLToPath(new URL('.', import.meta.url)).replace(/[\\/]$/, '');
await page({ folder, esbuild, entry: 'src/main.ts', base: '/lab' });
