// The lab: five ways side by side on one feed, in a real browser. Writes its pictures to the folder SCREENSHOTS, if
// that is set.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { eventually, launch, server } from './harness.mjs';

const WAYS = ['polling', 'long-polling', 'streaming', 'sse', 'websocket'];

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

async function open(t, options = {}) {
  const context = await browser.newContext({ locale: 'en-GB', ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  page.complaints = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) page.complaints.push(message.text());
  });
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  await page.goto(new URL('/lab', server).href);
  return page;
}

/** What a lane shows, by its labels. */
const lane = (page, way) =>
  page.locator(`[data-way=${way}] [data-figure]`).evaluateAll((figures) =>
    Object.fromEntries(figures.map(({ dataset, textContent }) => [dataset.figure, textContent])),
  );
const published = async (page) => Number.parseInt(await page.locator('#status').textContent(), 10) || 0;
const set = (page, id, value) =>
  page.locator(`#${id}`).evaluate((input, value) => {
    input.value = value;
    input.dispatchEvent(new Event('input'));
  }, `${value}`);

/** Bytes of what is written as 1.5 KiB. */
function bytes(text) {
  const [, number, unit] = /^([\d.]+) (B|KiB|MiB)$/.exec(text);
  return Number(number) * { B: 1, KiB: 1024, MiB: 1024 * 1024 }[unit];
}

test('each way gets each message, and the figures fit together', async (t) => {
  const page = await open(t);
  await set(page, 'rate', 20);
  await set(page, 'poll', 200);
  await page.getByRole('button', { name: 'Start' }).click();
  await eventually('some messages', () => published(page), (count) => count >= 30);
  for (const way of WAYS) {
    const knots = page.locator(`[data-way=${way}] .knot`);
    await eventually(`${way} has some`, () => knots.count(), (count) => count >= 20);
  }
  assert.match(await page.locator('#status').textContent(), /Each came once, and in order\.$/);
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Start again' }).waitFor();
  const count = await published(page);
  // What is shown follows what is counted, ten times a second.
  for (const way of WAYS) {
    const { p50, p99, requests, sent, received } = await eventually(
      'the figures',
      () => lane(page, way),
      (figures) => figures.p50 !== '–' && bytes(figures.received) > 20 * 50,
    );
    assert.match(`${p50} ${p99}`, /^[\d.]+ m?s [\d.]+ m?s$/);
    // Each request has a head.
    assert.ok(bytes(sent) > Number(requests) * 100, `${way} sent ${sent}`);
    if (way === 'polling') assert.ok(Number(requests) >= 2);
    else if (way === 'long-polling') assert.ok(requests >= 2 && requests <= count + 3, `${requests} of ${count}`);
    else assert.equal(requests, '1', way);
  }
  assert.deepEqual(page.complaints, []);
  // And once more: everything begins anew.
  await page.getByRole('button', { name: 'Start again' }).click();
  await eventually('it runs again', () => published(page), (now) => now > 0 && now < count);
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Start again' }).waitFor();
});

test('what the server spends on each way is measured one after the other', async (t) => {
  const page = await open(t);
  await set(page, 'poll', 200);
  await page.getByRole('button', { name: 'Measure CPU' }).click();
  await page.getByText('Measured: 200 messages each.').waitFor();
  for (const way of WAYS) {
    const { cpu, p50 } = await lane(page, way);
    assert.match(cpu, /^(\d+|< 1) µs$/, way);
    assert.equal(p50, '–', 'it is no run of the feed');
  }
  // Which leaves it as it is, and can be stopped in its turn.
  await page.getByRole('button', { name: 'Start again' }).click();
  await eventually('it runs', () => published(page), (count) => count > 0);
  assert.ok(await page.getByRole('button', { name: 'Measure CPU' }).isDisabled());
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Measure CPU' }).click();
  await page.getByText('Measuring what publishing costs').waitFor();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByText('Stopped.').waitFor();
  assert.deepEqual(page.complaints, []);
});

test('what goes wrong is told', async (t) => {
  const page = await open(t);
  await page.route('**/lines?*', (route) => route.fulfill({ status: 403, body: 'not here' }));
  await page.getByRole('button', { name: 'Start' }).click();
  await page.getByText('Streaming: 403: not here').waitFor();
  await page.getByRole('button', { name: 'Start again' }).waitFor();
});

const SIZES = { desktop: { width: 1180, height: 860 }, phone: { width: 360, height: 740 } };
for (const [size, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of ['light', 'dark']) {
    test(`on a ${size}, ${colorScheme}: nothing sticks out`, async (t) => {
      const page = await open(t, { viewport, colorScheme, deviceScaleFactor: 2 });
      await page.getByRole('button', { name: 'Start' }).click();
      await eventually('some messages', () => published(page), (count) => count >= 4);
      const widths = await page.evaluate(() => [
        document.documentElement.scrollWidth,
        Math.max(...[...document.querySelectorAll('body *')].map((element) => element.getBoundingClientRect().right)),
      ]);
      for (const width of widths) assert.ok(width <= viewport.width, `${width} of ${viewport.width}`);
      const folder = process.env.SCREENSHOTS;
      if (folder) {
        mkdirSync(folder, { recursive: true });
        await page.screenshot({ path: join(folder, `lab-${size}-${colorScheme}.png`), fullPage: true });
      }
    });
  }
}

test('two tabs at a time would have too few connections: the second one says so', async (t) => {
  const first = await open(t);
  await first.getByRole('button', { name: 'Start' }).click();
  await eventually('some messages', () => published(first), (count) => count >= 1);
  const second = await first.context().newPage();
  await second.goto(new URL('/lab', server).href);
  await second.getByRole('button', { name: 'Start' }).click();
  const trouble = second.getByRole('alert');
  await trouble.waitFor();
  assert.match(await trouble.textContent(), /^Another tab of this page is running\./);
  await first.getByRole('button', { name: 'Stop' }).click();
  await first.getByRole('button', { name: 'Start again' }).waitFor();
  await second.getByRole('button', { name: 'Start again' }).click();
  await eventually('some messages', () => published(second), (count) => count >= 1);
});
