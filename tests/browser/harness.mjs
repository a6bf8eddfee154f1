// What the tests share: the browser, people in it, and ways to wait for something with a deadline.
//
//   TAUTLINE_URL   where a server runs, as http://host:port (needed)
//   CHROMIUM       the browser (otherwise looked for in PATH)

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { chromium } from 'playwright-core';

/**
 * How long anything may take to happen, in milliseconds. Far more than it needs: a busy machine is
 * no failure.
 */
export const DEADLINE = 15_000;

/** The server under test. */
export const server = serverUrl();

/** Starts a browser, with more arguments if there are any. Whoever starts it closes it. */
export function launch(more = []) {
  return chromium.launch(launching(more));
}

/** With which options a browser is started. */
export function launching(more = []) {
  return {
    executablePath: browserPath(),
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      ...more,
    ],
  };
}

/** A room that no other test is in. */
export function freshRoom() {
  return `t-${randomBytes(6).toString('hex')}`;
}

/**
 * Waits until `read` gives a value that `accept` accepts; fails with the last value and `what` was
 * awaited.
 */
export async function eventually(what, read, accept, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  for (;;) {
    const value = await read();
    if (accept(value)) return value;
    if (Date.now() > end)
      assert.fail(`not within ${deadline} ms: ${what}; last seen: ${JSON.stringify(value)}`);
    await pause(20);
  }
}

/** Publishes through the HTTP API, as a backend does. */
export async function publish(channel, data) {
  const response = await fetch(new URL('/api/publish', server), {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-api-key': process.env.TAUTLINE_API_KEY ?? 'dev',
    },
    body: JSON.stringify({ channel, data }),
  });
  const answer = await response.json();
  assert.equal(response.status, 200, JSON.stringify(answer));
  assert.ok(answer.result, JSON.stringify(answer));
}

/** Connections that are subscribed to a channel, as the server has them. */
export async function connectionsOf(channel) {
  const response = await fetch(new URL('/api/presence_stats', server), {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-api-key': process.env.TAUTLINE_API_KEY ?? 'dev',
    },
    body: JSON.stringify({ channel }),
  });
  return (await response.json()).result.num_clients;
}

/** Somebody in front of a tab. */
export class Person {
  /** Whatever the page complained of: errors, and anything that its content policy stopped. */
  complaints = [];

  constructor(page, name) {
    this.page = page;
    this.name = name;
    page.setDefaultTimeout(DEADLINE);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.complaints.push(message.text());
    });
    page.on('pageerror', (error) => this.complaints.push(String(error)));
  }

  /**
   * Opens the page as somebody new, in a profile of their own. With `clock`, its time can be held.
   * `options` are those of a browser context.
   */
  static async open(browser, { name, room, clock = false, ...options }) {
    const context = await browser.newContext({ locale: 'en-GB', ...options });
    await context.addInitScript((name) => {
      const key = 'tautline.chat.name';
      if (name !== undefined && sessionStorage.getItem(key) === null)
        sessionStorage.setItem(key, name);
      addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
        console.error(`content policy: ${violatedDirective} ${blockedURI}`);
      });
    }, name);
    const person = new Person(await context.newPage(), name);
    if (clock) await person.page.clock.install();
    await person.page.goto(new URL(`/#${room}`, server).href);
    await person.online();
    return person;
  }

  get log() {
    return this.page.getByTestId('log');
  }

  /** Waits until the line holds and the room is entered. The round trip is measured over both. */
  async online() {
    await this.page.getByTestId('round-trip').waitFor();
  }

  async say(text) {
    await this.page.getByLabel('Message to').fill(text);
    await this.page.getByLabel('Message to').press('Enter');
  }

  /** The texts of all messages, from top to bottom. */
  texts() {
    return this.page.getByTestId('text').allTextContents();
  }

  /** The kinds of all notes, from top to bottom. */
  notes() {
    return this.page
      .getByTestId('note')
      .evaluateAll((notes) => notes.map(({ dataset }) => dataset.kind));
  }

  /** Who is listed as here. */
  people() {
    return this.page
      .getByTestId('person')
      .evaluateAll((people) => people.map((person) => person.querySelector('.name').textContent));
  }

  /** Waits until exactly these messages are shown, in this order. */
  async shows(texts) {
    const read = await eventually(
      `${this.name} sees ${texts.length} messages`,
      () => this.texts(),
      (seen) => seen.length >= texts.length,
    );
    assert.deepEqual(read, texts);
  }

  /** Cuts the line, and waits until it is. */
  async cut() {
    await this.press('Cut the line');
    await this.page.getByTestId('countdown').waitFor();
  }

  /** Ends the cut before its time. */
  async splice() {
    await this.press('Splice now');
  }

  /**
   * Presses a button without taking the focus from where it is, so that one can go on typing
   * meanwhile.
   */
  async press(name) {
    await this.page.getByRole('button', { name, disabled: false }).dispatchEvent('click');
  }

  /** Ends the visit: nothing must have gone wrong in it. */
  async close() {
    const complaints = this.complaints.splice(0);
    await this.page.context().close();
    assert.deepEqual(complaints, [], `the page complained to ${this.name}`);
  }
}

function serverUrl() {
  const url = process.env.TAUTLINE_URL;
  if (url === undefined || !URL.canParse(url)) {
    throw new Error(
      `TAUTLINE_URL is ${url === undefined ? 'not set' : `"${url}"`}: these tests need a running server, for instance\n` +
        '  cargo run --release -- dev --listen 127.0.0.1:8000\n' +
        '  TAUTLINE_URL=http://127.0.0.1:8000 npm test\n' +
        'or `cargo xtask test browser`, which starts one.',
    );
  }
  return url;
}

function browserPath() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of names) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not there.
      }
    }
  }
  throw new Error(
    `no browser found in PATH (looked for ${names.join(', ')}): install Chromium (Debian: apt-get install chromium), or set CHROMIUM to its path`,
  );
}
