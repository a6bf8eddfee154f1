// The page as it looks and as it is operated: sizes, colours, keyboard, scrolling. Writes its
// pictures to the folder SCREENSHOTS, if that is set.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { contrast } from './contrast.mjs';
import { eventually, freshRoom, launch, Person, publish, server } from './harness.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

const desktop = { width: 1180, height: 760 };
const phone = { width: 360, height: 740 };

for (const [size, viewport] of Object.entries({ desktop, phone })) {
  for (const colorScheme of ['light', 'dark']) {
    test(`on a ${size}, ${colorScheme}: empty, in talk, cut, and recovered`, async () => {
      const room = freshRoom();
      const look = { viewport, colorScheme, deviceScaleFactor: 2 };
      const ada = await Person.open(browser, { name: 'Ada', room, ...look });
      const picture = (state) => photograph(ada, `${size}-${colorScheme}-${state}`, colorScheme);
      await picture('empty');

      const bo = await Person.open(browser, { name: 'Bo', room });
      await bo.say('Harbour master says berth 7 is free until noon.');
      await ada.say('Good. We are an hour out.\nWind from the west.');
      await bo.say(`A word that is too long: ${'w'.repeat(200)}`);
      await bo.page.getByLabel('Message to').pressSequentially('typing');
      await ada.page.getByText('Bo is typing').waitFor();
      await picture('talk');

      await ada.cut();
      await bo.say('Did you get that?');
      await bo.shows([...(await ada.texts()), 'Did you get that?']);
      await ada.say('Not a word.');
      await picture('cut');
      await ada.splice();
      await ada.page.getByText('1 missed message recovered, none lost.').waitFor();
      await ada.page.getByText('waiting for the line').waitFor({ state: 'detached' });
      await picture('recovered');
      await contrast(ada.page);
      await ada.close();
      await bo.close();
    });
  }
}

test('the keyboard alone is enough', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  const { keyboard } = ada.page;
  const message = ada.page.getByLabel('Message to');
  await eventually(
    'the message field has the focus',
    () => focused(ada),
    (name) => name.startsWith('Message to'),
  );

  await keyboard.type('first line');
  await keyboard.press('Shift+Enter');
  await keyboard.type('second line');
  assert.equal(await message.inputValue(), 'first line\nsecond line');
  await keyboard.press('Enter');
  await ada.shows(['first line\nsecond line']);
  assert.equal(await message.inputValue(), '');
  await keyboard.press('Enter');
  await keyboard.type('   ');
  await keyboard.press('Enter');
  await ada.shows(['first line\nsecond line']);

  // Once around the page: each control can be reached, says what it is, and shows that it has the
  // focus.
  const reached = new Set();
  for (let i = 0; i < 12; i++) {
    await keyboard.press('Tab');
    const name = await focused(ada);
    if (name === '') continue;
    reached.add(name);
    assert.ok(await ringed(ada), `${name} shows no focus ring`);
  }
  for (const name of [
    'Room',
    'Your name',
    'Open a second tab',
    'Cut the line',
    `Messages in ${room}`,
    `Message to ${room}`,
  ]) {
    assert.ok(reached.has(name), `${name} is not reached by Tab: ${[...reached].join(', ')}`);
  }

  const tabTo = (name) =>
    eventually(
      `Tab reaches ${name}`,
      async () => (await keyboard.press('Tab'), focused(ada)),
      (seen) => seen === name,
    );
  await tabTo('Your name');
  await keyboard.press('Control+A');
  await keyboard.type('Augusta');
  await keyboard.press('Enter');
  await eventually(
    'the name is taken',
    () => ada.people(),
    (people) => people.join() === 'Augusta',
  );
  await ada.online();
  await tabTo('Cut the line');
  await keyboard.press('Space');
  await ada.page.getByTestId('countdown').waitFor();
  await tabTo('Splice now');
  await keyboard.press('Enter');
  await ada.page.getByText('Nothing was missed.').waitFor();
  await ada.close();
});

test('on a phone, room and people are behind a button which the keyboard works too', async () => {
  const ada = await Person.open(browser, { name: 'Ada', room: freshRoom(), viewport: phone });
  const name = ada.page.getByLabel('Your name');
  assert.equal(await name.isVisible(), false);
  const toggle = ada.page.getByRole('button', { name: 'Room and people, 1 here' });
  await toggle.press('Enter');
  await name.waitFor();
  await name.press('Escape');
  await name.waitFor({ state: 'hidden' });
  assert.equal(
    await focused(ada),
    'Room and people, 1 here',
    'the focus is back where it came from',
  );
  await ada.close();
});

test('the end stays in view for who is there, and who reads further up is left in peace', async () => {
  const room = freshRoom();
  for (let i = 0; i < 40; i++) await publish(room, { text: `old ${i}` });
  const ada = await Person.open(browser, { name: 'Ada', room });
  const scroll = () =>
    ada.log.evaluate(({ scrollTop, scrollHeight, clientHeight }) => ({
      top: scrollTop,
      below: scrollHeight - scrollTop - clientHeight,
    }));
  await eventually('the end is in view', scroll, ({ top, below }) => top > 0 && below < 2);
  await publish(room, { text: 'new' });
  await ada.page.getByText('new', { exact: true }).waitFor();
  await eventually('the end is still in view', scroll, ({ below }) => below < 2);

  await ada.log.focus();
  await ada.page.keyboard.press('Home');
  await eventually('the beginning is in view', scroll, ({ top }) => top === 0);
  await publish(room, { text: 'newer' });
  await publish(room, { text: 'newest' });
  const pill = ada.page.getByRole('button', { name: '2 new messages' });
  await pill.waitFor();
  assert.equal((await scroll()).top, 0);
  await pill.click();
  await eventually('the end is in view again', scroll, ({ below }) => below < 2);
  assert.equal(await pill.count(), 0);
  await ada.close();
});

test('who wants no motion gets none', async () => {
  const ada = await Person.open(browser, {
    name: 'Ada',
    room: freshRoom(),
    reducedMotion: 'reduce',
  });
  await ada.cut();
  // Two halves at once, at rest: a cut which is animated takes many frames to get there. How high each
  // point hangs is what moves then; how far apart they are depends on the words beside the rope.
  const halves = () =>
    ada.page
      .locator('.rope-body')
      .evaluateAll((paths) =>
        paths.map((path) => [...path.getAttribute('d').matchAll(/ ([\d.]+)/g)].map(([, y]) => y)),
      );
  const [left, right] = await eventually('the rope is cut', halves, ([, right]) => right.length > 0);
  await ada.page.evaluate(
    () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
  );
  assert.deepEqual(await halves(), [left, right]);
  assert.equal(await ada.page.evaluate(() => document.getAnimations().length), 0);
  await ada.close();
});

test('the page is served with a policy that lets in nothing foreign and nothing inline', async () => {
  const response = await fetch(new URL('/', server));
  const policy = response.headers.get('content-security-policy') ?? '';
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe/);
  const html = await response.text();
  assert.doesNotMatch(html, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/i);
  for (const [, address] of html.matchAll(/(?:src|href)="([^"]*)"/g))
    assert.match(address, /^\/assets\/[\w.-]+$/);
});

/** Waits until the rope hangs still: the same for some frames in a row. */
async function atRest(page) {
  await page.evaluate(async () => {
    const shape = () =>
      [...document.querySelectorAll('.rope-body')].map((path) => path.getAttribute('d')).join();
    let last = shape();
    for (let still = 0, frames = 0; still < 5 && frames < 600; frames++) {
      await new Promise((done) => requestAnimationFrame(done));
      still = shape() === last ? still + 1 : 0;
      last = shape();
    }
  });
}

/** Takes a picture, and looks at it: it must show something, in the right colours, and fit. */
async function photograph(person, name, colorScheme) {
  const { page } = person;
  // Neither the page nor the talk in it can be scrolled sideways.
  for (const element of [page.locator('html'), person.log]) {
    const { inside, outside } = await element.evaluate(({ scrollWidth, clientWidth }) => ({
      inside: scrollWidth,
      outside: clientWidth,
    }));
    assert.equal(inside, outside, `${name}: what is shown is wider than the window`);
  }
  await atRest(page);
  const png = await page.screenshot({ caret: 'hide' });
  if (process.env.SCREENSHOTS) {
    mkdirSync(process.env.SCREENSHOTS, { recursive: true });
    writeFileSync(join(process.env.SCREENSHOTS, `${name}.png`), png);
  }
  const { colours, commonest, brightness } = await analyse(png);
  assert.ok(
    colours > 60 && commonest < 0.95,
    `${name} is blank: ${colours} colours, ${commonest} of it the same`,
  );
  if (colorScheme === 'dark') assert.ok(brightness < 60, `${name} is not dark: ${brightness}`);
  else assert.ok(brightness > 200, `${name} is not light: ${brightness}`);
}

/**
 * Colours of a picture: how many, the share of the commonest, and the mean brightness from 0 to
 * 255.
 */
async function analyse(png) {
  const page = await browser.newPage();
  try {
    return await page.evaluate(async (data) => {
      const image = new Image();
      image.src = `data:image/png;base64,${data}`;
      await image.decode();
      const canvas = new OffscreenCanvas(image.width, image.height);
      const context = canvas.getContext('2d');
      context.drawImage(image, 0, 0);
      const pixels = new Uint32Array(
        context.getImageData(0, 0, image.width, image.height).data.buffer,
      );
      const counts = new Map();
      let brightness = 0;
      for (const pixel of pixels) {
        counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
        brightness +=
          (0.2126 * (pixel & 255) +
            0.7152 * ((pixel >> 8) & 255) +
            0.0722 * ((pixel >> 16) & 255)) /
          pixels.length;
      }
      return {
        colours: counts.size,
        commonest: Math.max(...counts.values()) / pixels.length,
        brightness,
      };
    }, png.toString('base64'));
  } finally {
    await page.close();
  }
}

/** The accessible name of what has the focus, or '' if nothing has. */
function focused(person) {
  return person.page.evaluate(() => {
    const element = document.activeElement;
    if (element === null || element === document.body) return '';
    return (
      element.getAttribute('aria-label') ??
      element.labels?.[0]?.textContent ??
      element.textContent
    ).trim();
  });
}

/** Whether what has the focus, or the box around it, is outlined. */
function ringed(person) {
  return person.page.evaluate(() => {
    const outlined = (element) =>
      element !== null &&
      getComputedStyle(element).outlineStyle !== 'none' &&
      parseFloat(getComputedStyle(element).outlineWidth) >= 1;
    return (
      outlined(document.activeElement) || outlined(document.activeElement?.parentElement ?? null)
    );
  });
}
