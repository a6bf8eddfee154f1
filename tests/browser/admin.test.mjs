// The admin's page: who gets in and who doesn't, what it shows, and what pages of others can do about it. Writes its
// pictures to the folder SCREENSHOTS, if that is set.
//
//   TAUTLINE_PROGRAM   the server's program; it is started here, as often as there are ways to offer the page

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';

import { contrast } from './contrast.mjs';
import { eventually, launch } from './harness.mjs';

const PASSWORD = 'correct horse battery';
const WRONG = 'That is not the password.';

const config = (http, more = '') => `
[http_server]
address = "127.0.0.1"
port = 0
${http}
[admin]
enabled = true
password = "${PASSWORD}"
[node]
name = "harbour-1"
workers = 2
[http_api]
key = "dev"
[prometheus]
enabled = true
[client]
allow_anonymous_connect_without_token = true
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
[[channel.namespaces]]
name = "chat"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
${more}`;

let folder, browser;
before(async () => {
  assert.ok(process.env.TAUTLINE_PROGRAM, 'TAUTLINE_PROGRAM is not set; `cargo xtask test browser` does that');
  folder = mkdtempSync(join(tmpdir(), 'tautline-admin-'));
  // The certificate is the test's own.
  browser = await launch(['--ignore-certificate-errors']);
});
after(async () => {
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true });
});

/** A server for the time of a test: where it listens, in the order in which it says so, and its process. */
async function start(t, text, listeners = 1) {
  const file = join(folder, `${t.name.replace(/\W+/g, '-').slice(0, 40)}.toml`);
  writeFileSync(file, text);
  const child = spawn(process.env.TAUTLINE_PROGRAM, ['serve', '--config', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  t.after(() => child.kill('SIGKILL'));
  const [hosts, lines] = [[], createInterface({ input: child.stderr })];
  for await (const line of lines) {
    const found = /127\.0\.0\.1:\d+/.exec(line);
    if (found && /listening|listener/.test(line)) hosts.push({ host: found[0], line });
    if (hosts.length === listeners) break;
  }
  assert.equal(hosts.length, listeners, 'the server says where it listens');
  child.stderr.resume();
  return { hosts, child, file };
}

/** Opens a page in a profile of its own, with what it complains of. */
async function open(t, url, options = {}) {
  const context = await browser.newContext({ locale: 'en-GB', ignoreHTTPSErrors: true, ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  page.complaints = [];
  page.on('console', (message) => {
    // That somebody isn't logged in yet is an answer of the page's own server.
    const isAnswer = /status of 4(01|29)/.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !isAnswer) page.complaints.push(message.text());
  });
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  await page.goto(url);
  return page;
}

async function type(page, password) {
  await page.getByLabel('Password').fill(password);
  await page.getByLabel('Password').press('Enter');
}

/** The page, with whoever has the password before it. */
async function logIn(t, origin, options) {
  const page = await open(t, `${origin}/admin`, options);
  await type(page, PASSWORD);
  await isIn(page);
  return page;
}

const isIn = (page) => page.getByText('serving', { exact: true }).waitFor();
const isOut = (page) => page.getByRole('button', { name: 'Log in' }).waitFor();
const cookieOf = async (page) => (await page.context().cookies()).find(({ name }) => name === 'tautline_admin');

/** What the server says to a cookie. */
const statusOf = async (origin, cookie, path = '/admin/debug') =>
  (await fetch(origin + path, { headers: { cookie: `tautline_admin=${cookie}` } })).status;

/** Clients in channels, for as long as their page is open. */
async function clients(t, origin, channels) {
  const page = await open(t, `${origin}/health`, { bypassCSP: true });
  await page.evaluate(async (channels) => {
    globalThis.sockets = await Promise.all(
      channels.map(
        (channel) =>
          new Promise((resolve, reject) => {
            const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/connection/websocket`);
            const send = (command) => socket.send(JSON.stringify(command));
            socket.onopen = () => {
              send({ id: 1, connect: {} });
              send({ id: 2, subscribe: { channel } });
            };
            socket.onclose = ({ code, reason }) => reject(new Error(`${code} ${reason}`));
            socket.onmessage = ({ data }) => {
              if (data === '{}') socket.send(data);
              else if (data.includes('"error"')) reject(new Error(data));
              else if (data.includes('"subscribe"')) resolve(socket);
            };
          }),
      ),
    );
  }, channels);
  return page;
}

/** The rows of a table, as texts. */
const rows = (page, id) =>
  page.locator(`#${id} tbody tr`).evaluateAll((all) =>
    all.map((row) => [...row.children].map(({ textContent }) => textContent)),
  );

/** The large numbers. */
const totals = (page) =>
  page.locator('.tile').evaluateAll((tiles) =>
    Object.fromEntries(tiles.map((tile) => [...tile.querySelectorAll('span, b')].map((one) => one.textContent).reverse())),
  );

test('the password lets in, another one does not, and the session is for this browser alone', async (t) => {
  const { hosts, file } = await start(t, config(''));
  const origin = `http://${hosts[0].host}`;
  const page = await open(t, `${origin}/admin`);
  await isOut(page);
  assert.equal(await page.locator('#board').isVisible(), false);
  await type(page, 'wrong');
  await page.getByRole('alert').getByText(WRONG).waitFor();
  assert.equal(await page.getByLabel('Password').inputValue(), '');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'password', 'one types on');
  assert.equal(await cookieOf(page), undefined);

  await type(page, PASSWORD);
  await isIn(page);
  assert.equal(await page.getByLabel('Password').isVisible(), false);
  const cookie = await cookieOf(page);
  const { httpOnly, sameSite, secure, path } = cookie;
  assert.deepEqual({ httpOnly, sameSite, secure, path }, { httpOnly: true, sameSite: 'Strict', secure: false, path: '/admin' });
  const hours = (cookie.expires - Date.now() / 1000) / 3600;
  assert.ok(hours > 11.9 && hours <= 12, `${hours} h`);
  assert.equal(await page.evaluate(() => document.cookie), '', 'scripts see nothing of it');
  assert.ok(!readFileSync(file, 'utf8').includes(cookie.value));
  // It is for this browser, and stays with it.
  const other = await open(t, `${origin}/admin`);
  await isOut(other);
  await page.reload();
  await isIn(page);

  await page.getByRole('button', { name: 'Log out' }).click();
  await isOut(page);
  assert.equal(await page.getByText('harbour-1').count(), 0, 'nothing is left of what was shown');
  assert.equal(await cookieOf(page), undefined);
  assert.equal(await statusOf(origin, cookie.value), 401, 'whoever has copied it has nothing');
  await page.goBack({ waitUntil: 'load' }).catch(() => {});
  await page.goto(`${origin}/admin`);
  await isOut(page);
  assert.deepEqual([...page.complaints, ...other.complaints], []);
});

test('over TLS the cookie is for encrypted connections alone', async (t) => {
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const files = ['-out', join(folder, 'cert.pem'), '-keyout', join(folder, 'key.pem')];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
  execFileSync('openssl', ['req', '-x509', '-nodes', '-days', '7', ...curve, ...subject, ...files], { stdio: 'ignore' });
  const tls = `[http_server.tls]\nenabled = true\ncert_pem = "${folder}/cert.pem"\nkey_pem = "${folder}/key.pem"`;
  const { hosts } = await start(t, config(tls));
  const page = await logIn(t, `https://${hosts[0].host}`);
  const { secure, httpOnly, sameSite } = await cookieOf(page);
  assert.deepEqual({ secure, httpOnly, sameSite }, { secure: true, httpOnly: true, sameSite: 'Strict' });
  assert.deepEqual(page.complaints, []);
});

test('who guesses is told how long to wait', async (t) => {
  const { hosts } = await start(t, config(''));
  const page = await open(t, `http://${hosts[0].host}/admin`);
  for (const said of [...Array(5).fill(WRONG), /^Too many attempts: try again in \d+ s\.$/]) {
    const answered = page.waitForResponse(/\/admin\/login$/);
    await type(page, 'wrong');
    await (await answered).finished();
    await page.getByRole('alert').getByText(said).waitFor();
  }
  // Then the right one is none either.
  await type(page, PASSWORD);
  await page.getByRole('alert').getByText('Too many attempts').waitFor();
  assert.equal(await cookieOf(page), undefined);
  assert.deepEqual(page.complaints, []);
});

test('pages of others can neither log in nor out, nor read, nor frame it', async (t) => {
  const { hosts } = await start(t, config(''));
  const origin = `http://${hosts[0].host}`;
  const evil = createServer((request, response) => response.setHeader('content-type', 'text/html').end('<p>evil</p>'));
  evil.listen(0);
  await once(evil, 'listening');
  t.after(() => evil.close());
  const page = await logIn(t, origin);
  const { value } = await cookieOf(page);
  const attacker = await page.context().newPage();
  const answers = [];
  attacker.on('response', async (response) => {
    if (!response.url().startsWith(origin)) return;
    const { cookie } = await response.request().allHeaders();
    answers.push({ of: response.url().slice(origin.length), status: response.status(), cookie: Boolean(cookie) });
  });
  // A site of its own, and another port of this one: to that, cookies that are for one site are sent.
  for (const from of [`http://localhost:${evil.address().port}`, `http://127.0.0.1:${evil.address().port}`]) {
    await attacker.goto(from);
    const read = await attacker.evaluate(
      async ([origin, password]) => {
        const read = [];
        for (const path of ['/admin/login', '/admin/logout', '/admin/debug', '/admin/channels']) {
          for (const mode of ['no-cors', 'cors'])
            for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/json']) {
              const method = /log(in|out)$/.test(path) ? 'POST' : 'GET';
              const body = method === 'POST' ? JSON.stringify({ password }) : undefined;
              const headers = body ? { 'content-type': type } : {};
              try {
                const answer = await fetch(origin + path, { method, mode, headers, body, credentials: 'include' });
                read.push(await answer.text());
              } catch {
                // The browser keeps it back.
              }
            }
        }
        return read.filter((text) => text !== '');
      },
      [origin, PASSWORD],
    );
    assert.deepEqual(read, [], `${from} has read something`);
    // What a form can send looks like JSON if one wants it to.
    for (const path of ['login', 'logout']) {
      await attacker.goto(from);
      await attacker.evaluate(
        ([action, password]) => {
          const form = Object.assign(document.createElement('form'), { action, method: 'post', enctype: 'text/plain' });
          const field = Object.assign(document.createElement('input'), { name: `{"password":"${password}","x":"`, value: '"}' });
          form.append(field);
          document.body.append(form);
          form.submit();
        },
        [`${origin}/admin/${path}`, PASSWORD],
      );
      await attacker.getByText(/Expected Content-Type|origin/i).waitFor();
    }
    await attacker.goto(from);
    await attacker.evaluate(
      (src) =>
        new Promise((resolve) => {
          const frame = Object.assign(document.createElement('iframe'), { src, onload: resolve, onerror: resolve });
          document.body.append(frame);
        }),
      `${origin}/admin`,
    );
    const framed = attacker.frames().find((frame) => frame !== attacker.mainFrame());
    assert.equal(await framed.locator('#login, #board').count(), 0, `${from} has framed the page`);
    assert.equal((await attacker.context().cookies()).filter(({ name }) => name === 'tautline_admin').length, 1);
  }
  const posts = answers.filter(({ of }) => /log(in|out)$/.test(of));
  assert.ok(posts.length >= 8, JSON.stringify(answers));
  for (const { of, status } of posts) assert.ok([403, 405, 415].includes(status), `${of}: ${status}`);
  assert.ok(posts.some(({ cookie }) => cookie), 'the cookie alone was not what was missing');
  assert.equal(await statusOf(origin, value), 200, 'nobody was logged out');
  assert.equal((await cookieOf(page)).value, value, 'and nobody logged in anew');
});

test('it shows who is connected and where, and channels by their pattern', async (t) => {
  const { hosts, file, child } = await start(t, config(''));
  const origin = `http://${hosts[0].host}`;
  const page = await logIn(t, origin);
  await eventually('nobody', () => totals(page), ({ connected }) => connected === '0');
  await page.getByText('nobody is connected').waitFor();
  const markup = '<img src=x onerror=alert(1)>';
  const guests = await clients(t, origin, ['chat:large', 'chat:large', 'chat:large', 'chat:small', markup]);
  const seen = await eventually('five', () => totals(page), ({ connected }) => connected === '5');
  assert.equal(seen.subscriptions, '5');
  assert.match(seen.memory, /^[\d.]+ MiB$/);
  assert.equal(await page.locator('.tile svg polyline').count(), 5);
  const all = [['chat:large', '3'], ['<img src=x onerror=alert(1)>', '1'], ['chat:small', '1']];
  await eventually('the largest first', () => rows(page, 'channels'), (rows) => rows.length === 3);
  assert.deepEqual(await rows(page, 'channels'), all);
  assert.equal(await page.locator('#channels img').count(), 0, 'names are no markup');
  const workers = await rows(page, 'workers');
  assert.deepEqual(workers.map(([name]) => name), ['worker-0', 'worker-1']);
  const column = await page.locator('#workers thead th').allTextContents();
  const sockets = column.indexOf('websocket');
  assert.equal(workers.reduce((sum, row) => sum + Number(row[sockets]), 0), 5);
  await page.locator('.legend').getByText('websocket').waitFor();

  await page.getByLabel('Pattern').fill('chat:*');
  await eventually('those of the pattern', () => rows(page, 'channels'), (rows) => rows.length === 2);
  await page.getByText('2 channels of this pattern').waitFor();
  await page.getByLabel('Pattern').fill('nothing:*');
  await page.getByText('0 channels of this pattern').waitFor();
  // What is no pattern is told, and is no failure of the server's.
  await page.getByLabel('Pattern').fill('[');
  await page.getByText(/^pattern: /).waitFor();
  await isIn(page);
  await page.getByLabel('Pattern').fill('');
  await page.getByText('3 channels', { exact: true }).waitFor();
  await guests.context().close();
  await eventually('nobody any more', () => totals(page), ({ connected }) => connected === '0');
  const expected = page.complaints.splice(0);
  assert.ok(expected.every((text) => text.includes('status of 400')), expected.join());

  // Another password ends what was opened with the old one.
  writeFileSync(file, readFileSync(file, 'utf8').replace(PASSWORD, 'another one entirely'));
  child.kill('SIGHUP');
  await isOut(page);
  await page.getByRole('alert').getByText('The session is over: log in again.').waitFor();
  await type(page, PASSWORD);
  await page.getByRole('alert').getByText(WRONG).waitFor();
  await type(page, 'another one entirely');
  await isIn(page);
  assert.deepEqual(page.complaints.splice(0), []);

  // And a server that is gone is not shown as if it were there.
  child.kill('SIGKILL');
  await page.getByText('no answer', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByText('The server does not answer.').waitFor();
});

test('with a listener of its own, nothing of it is to be found where clients come in', async (t) => {
  const { hosts } = await start(t, config('internal_listen = "127.0.0.1:0"'), 2);
  const inside = hosts.find(({ line }) => line.includes('listener of their own'));
  const outside = hosts.find((one) => one !== inside);
  assert.ok(inside && outside, JSON.stringify(hosts));
  const page = await logIn(t, `http://${inside.host}`);
  const { value } = await cookieOf(page);
  const origin = `http://${outside.host}`;
  const paths = ['', '/', '/admin.js', '/admin.css', '/mark.svg', '/debug', '/channels', '/login', '/logout'];
  for (const path of paths.map((path) => `/admin${path}`).concat('/metrics', '/api/info', '/api'))
    for (const method of ['GET', 'POST', 'HEAD']) {
      const headers = { cookie: `tautline_admin=${value}`, 'content-type': 'application/json', 'x-api-key': 'dev' };
      const body = method === 'POST' ? JSON.stringify({ password: PASSWORD }) : undefined;
      const answer = await fetch(origin + path, { method, headers, body });
      assert.equal(answer.status, 404, `${method} ${path}`);
      assert.equal(answer.headers.get('set-cookie'), null);
      assert.doesNotMatch(await answer.text(), /admin/i, 'not even that there is such a thing');
    }
  const outsider = await open(t, `${origin}/admin`);
  assert.equal(await outsider.getByLabel('Password').count(), 0);
  // And clients are let in on one side alone.
  await clients(t, origin, ['chat:one']);
  await eventually('the client', () => totals(page), ({ connected }) => connected === '1');
  assert.equal((await fetch(`http://${inside.host}/connection/websocket`)).status, 404);
  assert.equal(await statusOf(`http://${inside.host}`, value), 200);
});

test('the keyboard alone is enough', async (t) => {
  const { hosts } = await start(t, config(''));
  const page = await open(t, `http://${hosts[0].host}/admin`);
  await isOut(page);
  await eventually('the password has the focus', () => page.evaluate(() => document.activeElement.id), (id) => id === 'password');
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press('Enter');
  await isIn(page);
  const reached = [];
  for (let i = 0; i < 6; i++) {
    await page.keyboard.press('Tab');
    const { name, ring } = await page.evaluate(() => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const name = element.getAttribute('aria-label') ?? element.labels?.[0]?.textContent ?? element.textContent;
      return { name: element === document.body ? '' : name, ring: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1 };
    });
    if (name === '') continue;
    assert.ok(ring, `${name} shows no focus ring`);
    reached.push(name);
  }
  for (const name of ['Log out', 'Workers', 'Pattern']) assert.ok(reached.includes(name), reached.join());
});

const SIZES = { desktop: { width: 1180, height: 860 }, phone: { width: 360, height: 740 } };
test('it looks well on a desktop and on a phone, by day and by night', async (t) => {
  const { hosts } = await start(t, config('', '[limits.memory]\nmax_bytes = 536870912\n'));
  const origin = `http://${hosts[0].host}`;
  const names = [...Array(24).fill('chat:harbour'), ...Array(9).fill('chat:pier-7'), ...Array(4).fill('news'), 'x'.repeat(120)];
  await clients(t, origin, names);
  const fits = async (page, width, picture) => {
    const widths = await page.evaluate(() => [
      document.documentElement.scrollWidth,
      // What scrolls by itself may be wider.
      ...[...document.querySelectorAll('body *:not(.wide *)')].map((element) => element.getBoundingClientRect().right),
    ]);
    for (const wide of widths) assert.ok(wide <= width + 0.5, `${picture}: ${wide} of ${width}`);
    if (!process.env.SCREENSHOTS) return;
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    await page.screenshot({ path: join(process.env.SCREENSHOTS, `${picture}.png`), fullPage: true });
  };
  for (const [size, viewport] of Object.entries(SIZES))
    for (const colorScheme of ['light', 'dark']) {
      const picture = `admin-${size}-${colorScheme}`;
      const page = await open(t, `${origin}/admin`, { viewport, colorScheme, deviceScaleFactor: 2 });
      await isOut(page);
      await type(page, 'wrong');
      await page.getByText(WRONG).waitFor();
      await contrast(page, 5);
      await fits(page, viewport.width, `${picture}-login`);
      await type(page, PASSWORD);
      await isIn(page);
      await eventually('all channels', () => rows(page, 'channels'), (rows) => rows.length === 4);
      await contrast(page);
      await fits(page, viewport.width, picture);
      assert.deepEqual(page.complaints, []);
    }
});
