// Builds the page of `tautline dev`: `../page/build.mjs` says how, and what the command line takes. The licences of what
// is bundled go with it.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import esbuild from 'esbuild';
import { fail, page } from '../page/build.mjs';

const folder = fileURLToPath(new URL('.', import.meta.url)).replace(/[\\/]$/, '');
await page({
  folder,
  esbuild,
  entry: 'src/main.tsx',
  options: {
    jsx: 'automatic',
    jsxImportSource: 'preact',
    define: { 'process.env.NODE_ENV': '"production"' },
  },
  bundles: (inputs, add) => {
    const licences = add('licences', 'txt', Buffer.from(licencesOf(inputs)));
    return `/*! Licences of what is bundled here: ${licences} */\n`;
  },
});

/** The licence texts that the bundled packages ask to go with them. */
function licencesOf(inputs) {
  const packages = new Set(
    inputs.flatMap((input) => input.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1] ?? []),
  );
  const texts = [...packages].sort().map((name) => {
    const place = join(folder, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(place, 'package.json'), 'utf8'));
    const file = readdirSync(place).find((entry) => /^licen[cs]e(\.\w+)?$/i.test(entry));
    if (file === undefined)
      fail(`${name} ${version} comes without the text of its licence (${license})`);
    return `${name} ${version} (${license})\n\n${readFileSync(join(place, file), 'utf8').replace(/\r\n/g, '\n').trim()}\n`;
  });
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}
