// A server of a test's own, with a configuration of its own, beside the one under test.
//
//   TAUTLINE_PROGRAM   the server's program (needed)

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Starts one on a free port of this machine: its `url`, and `stop`. `config` is what the file has beside the listener. */
export async function serve(config) {
  const program = process.env.TAUTLINE_PROGRAM;
  assert.ok(program, 'TAUTLINE_PROGRAM is not set; `cargo xtask test browser` does that');
  const folder = mkdtempSync(join(tmpdir(), 'tautline-browser-'));
  const file = join(folder, 'config.toml');
  writeFileSync(file, `[http_server]\naddress = "127.0.0.1"\nport = 0\n\n${config}`);
  const child = spawn(program, ['serve', '--config', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  const stop = () => {
    child.kill();
    rmSync(folder, { recursive: true, force: true });
  };
  for await (const line of createInterface({ input: child.stderr })) {
    const found = /127\.0\.0\.1:\d+/.exec(line);
    if (found && line.includes('listening')) {
      child.stderr.resume();
      return { url: `http://${found[0]}`, stop };
    }
  }
  stop();
  throw new Error('the server ended without saying where it listens');
}
