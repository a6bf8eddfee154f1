// The chat as people use it: tabs in a real browser, over a real server.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually, freshRoom, launch, Person, publish, server } from './harness.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

test('a newcomer opens a second tab and talks from one to the other', async () => {
  const room = freshRoom();
  const first = await Person.open(browser, { name: 'Ada', room });
  const opening = first.page.context().waitForEvent('page');
  await first.page.getByRole('link', { name: 'open this page in a second tab' }).click();
  const second = new Person(await opening, 'the second tab');
  await second.online();

  assert.match(await second.page.getByTestId('state').textContent(), /WebSocket/);
  assert.match(await second.page.getByTestId('round-trip').textContent(), /^\d+(\.\d)? ms$/);
  await first.say('hello over there');
  await second.shows(['hello over there']);
  await second.say('hello yourself');
  await first.shows(['hello over there', 'hello yourself']);
  // Two tabs of one browser are two people: of each other's messages neither is their own.
  const mine = (person) =>
    person.page
      .getByTestId('message')
      .evaluateAll((rows) => rows.map(({ dataset }) => dataset.you));
  assert.deepEqual(await mine(first), ['true', 'false']);
  assert.deepEqual(await mine(second), ['false', 'true']);
  assert.equal(await second.page.title(), `#${room} · Tautline`);
  await first.close();
});

test('everybody sees who is here, who comes and who goes', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  assert.deepEqual(await ada.people(), ['Ada']);
  const bo = await Person.open(browser, { name: 'Bo', room });
  await eventually(
    'Ada sees Bo',
    () => ada.people(),
    (people) => people.join() === 'Ada,Bo',
  );
  await eventually(
    'Bo sees Ada',
    () => bo.people(),
    (people) => people.join() === 'Bo,Ada',
  );
  await ada.page.getByText('Bo joined').waitFor();

  // A second tab of the same person counts as a tab, not as a person.
  const context = bo.page.context();
  const copy = await context.newPage();
  await copy.addInitScript(
    (items) => {
      for (const [key, value] of Object.entries(items)) sessionStorage.setItem(key, value);
    },
    await bo.page.evaluate(() => ({ ...sessionStorage })),
  );
  await copy.goto(bo.page.url());
  await ada.page.getByText('2 tabs').waitFor();
  assert.deepEqual(await ada.people(), ['Ada', 'Bo']);
  await copy.close();
  await ada.page.getByText('2 tabs').waitFor({ state: 'detached' });

  await bo.close();
  await eventually(
    'Ada is alone',
    () => ada.people(),
    (people) => people.join() === 'Ada',
  );
  await ada.page.getByText('Bo left').waitFor();
  await ada.close();
});

test('typing shows while somebody types, and goes by itself or with the message', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  const bo = await Person.open(browser, { name: 'Bo', room });
  const typing = ada.page.getByTestId('typing');
  const reads = (text) =>
    eventually(
      `typing reads "${text}"`,
      () => typing.textContent(),
      (seen) => seen === text,
    );

  await bo.page.getByLabel('Message to').pressSequentially('thinking');
  await reads('Bo is typing …');
  const own = await bo.page.getByTestId('typing').textContent();
  assert.equal(own, '', 'nobody is told of their own typing');
  await reads('');
  await bo.page.getByLabel('Message to').pressSequentially(' again');
  await reads('Bo is typing …');
  await bo.page.getByLabel('Message to').press('Enter');
  await ada.shows(['thinking again']);
  assert.equal(await typing.textContent(), '');
  await ada.close();
  await bo.close();
});

test('the cut line: what was missed is recovered, in order, each once, and counted', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  const bo = await Person.open(browser, { name: 'Bo', room });
  await bo.say('before');
  await ada.shows(['before']);

  await ada.cut();
  assert.equal(await ada.page.getByTestId('state').textContent(), 'line cut');
  const missed = ['one', 'two', 'three', 'four'];
  for (const text of missed) await bo.say(text);
  await bo.shows(['before', ...missed]);
  await ada.say('said without a line');
  await ada.page.getByText('waiting for the line').waitFor();
  assert.deepEqual(
    await ada.texts(),
    ['before', 'said without a line'],
    'a cut line carries nothing',
  );

  // Nobody splices it: it comes back by itself when the time is over.
  const recovered = ada.page.locator('[data-testid=note][data-kind=recovered]');
  await recovered.waitFor();
  assert.match(
    await recovered.textContent(),
    /^Line back after \d+(\.\d)? s\. 4 missed messages recovered, none lost\.$/,
  );
  await bo.say('after');
  const all = ['before', ...missed, 'said without a line', 'after'];
  await bo.shows(all);
  await ada.shows(all);
  const marked = await ada.page
    .locator('[data-recovered=true]')
    .getByTestId('text')
    .allTextContents();
  assert.deepEqual(marked, missed);
  assert.equal(await ada.page.getByText('waiting for the line').count(), 0);
  assert.deepEqual(
    (await ada.notes()).filter((kind) => kind !== 'joined'),
    ['down', 'recovered'],
  );

  await ada.cut();
  await ada.splice();
  await ada.page.getByText('Nothing was missed.').waitFor();
  await ada.shows(all);
  await ada.close();
  await bo.close();
});

test('cut again and again while both talk: nothing is lost, doubled or out of order on either side', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  const bo = await Person.open(browser, { name: 'Bo', room });
  const count = 60;
  const talk = async (person) => {
    for (let i = 0; i < count; i++) await person.say(`${person.name} ${i}`);
  };
  const trouble = async () => {
    for (let i = 0; i < 6; i++) {
      await ada.cut();
      await ada.splice();
      await eventually(
        'the line is back',
        () => ada.page.getByTestId('state').textContent(),
        (state) => state === 'WebSocket',
      );
    }
  };
  await Promise.all([talk(ada), talk(bo), trouble()]);
  const expected = (name) => Array.from({ length: count }, (_, i) => `${name} ${i}`);
  for (const person of [ada, bo]) {
    const texts = await eventually(
      `${person.name} sees all`,
      () => person.texts(),
      (texts) => texts.length >= 2 * count,
    );
    for (const name of ['Ada', 'Bo']) {
      assert.deepEqual(
        texts.filter((text) => text.startsWith(name)),
        expected(name),
        `${name} as seen by ${person.name}`,
      );
    }
  }
  await eventually(
    'nothing of Ada’s waits any more',
    () => ada.page.locator('[data-state]:is([data-state=waiting],[data-state=sending])').count(),
    (n) => n === 0,
  );
  // Both see one channel: the order between the two talkers is the same as well.
  assert.deepEqual(await ada.texts(), await bo.texts());
  assert.ok(!(await ada.notes()).some((kind) => kind === 'gap' || kind === 'unrecovered'));
  await ada.close();
  await bo.close();
});

test('too long away: what can’t be recovered is admitted, and counted', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room, clock: true });
  await ada.say('before');
  await ada.page.locator('[data-state=sent]').waitFor();
  await ada.cut();
  // Ada's time stands still, so that the line stays cut for as long as it takes to publish more
  // than the server keeps of a channel.
  await ada.page.clock.pauseAt(Date.now() + 1000);
  const count = 1100;
  for (let i = 1; i <= count; i++) await publish(room, { text: `m${i}` });
  await ada.page.clock.resume();
  await ada.splice();
  await ada.page.locator('[data-testid=note][data-kind=unrecovered]').waitFor();
  await ada.page.getByText('1,050 messages are missing here.').waitFor();
  await publish(room, { text: 'live again' });
  const rest = Array.from({ length: 50 }, (_, i) => `m${count - 49 + i}`);
  await ada.shows(['before', ...rest, 'live again']);
  await ada.close();
});

test('who comes later reads what was said, and stays the same person over a reload', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  const texts = Array.from({ length: 5 }, (_, i) => `line ${i}`);
  for (const text of texts) await ada.say(text);
  await ada.shows(texts);
  const bo = await Person.open(browser, { name: 'Bo', room });
  await bo.shows(texts);

  await eventually(
    'all are sent',
    () => ada.page.locator('[data-state=sent]').count(),
    (n) => n === texts.length,
  );
  await ada.page.reload();
  await ada.online();
  await ada.shows(texts);
  assert.equal(
    await ada.page.locator('[data-testid=message][data-you=true]').count(),
    texts.length,
  );
  assert.deepEqual(await ada.people(), ['Ada', 'Bo']);
  await ada.close();
  await bo.close();
});

test('names and messages are text, whatever is in them', async () => {
  const room = freshRoom();
  const evil = '<img src=x onerror="window.broken=1">';
  const ada = await Person.open(browser, { name: 'Ada', room });
  const bo = await Person.open(browser, { name: evil.slice(0, 32), room });
  const texts = [
    evil,
    '<script>window.broken=1</script>',
    '</p><svg onload=window.broken=1>',
    '{{constructor.constructor("window.broken=1")()}}',
    'javascript:window.broken=1',
    '&lt;b&gt; \u202e backwards',
  ];
  await bo.page.getByLabel('Message to').pressSequentially('x');
  await ada.page.getByText(`${evil.slice(0, 32)} is typing`).waitFor();
  for (const text of texts) await bo.say(text);
  // What comes another way may overtake what is under way.
  await ada.shows(texts);
  await publish(room, { text: evil, id: evil });
  await publish(room, { [evil]: evil });
  await ada.shows([...texts, evil, JSON.stringify({ [evil]: evil })]);
  assert.deepEqual(await ada.people(), ['Ada', evil.slice(0, 32)]);
  for (const person of [ada, bo]) {
    assert.equal(await person.page.evaluate(() => window.broken), undefined);
    assert.equal(
      await person.page.locator('#app :is(img, script, b, iframe, [onload], [onerror])').count(),
      0,
    );
    await person.close();
  }
});

test('a server’s own publications are shown for what they are', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  await publish(room, { text: 'from a backend' });
  await publish(room, { temperature: 21.5 });
  await ada.shows(['from a backend', '{"temperature":21.5}']);
  assert.equal(await ada.page.getByText('HTTP API').first().isVisible(), true);
  await ada.close();
});

test('rooms are apart, are linked to by address, and their names are made usable', async () => {
  const [here, there] = [freshRoom(), freshRoom()];
  const ada = await Person.open(browser, { name: 'Ada', room: here });
  const bo = await Person.open(browser, { name: 'Bo', room: there });
  await bo.say('in there');
  await bo.shows(['in there']);
  await ada.say('in here');
  await ada.shows(['in here']);

  const field = ada.page.getByLabel('Room', { exact: true });
  await field.fill(` ${there.toUpperCase()}!`);
  await field.press('Enter');
  // Until the other room is entered, the page shows this one.
  await ada.page.getByLabel(`Message to ${there}`).waitFor();
  await ada.shows(['in there']);
  assert.equal(new URL(ada.page.url()).hash, `#${there}`);
  await ada.page.goBack();
  await ada.page.getByLabel(`Message to ${here}`).waitFor();
  await ada.shows(['in here']);

  await field.fill('://');
  await ada.page.getByText('A room needs a letter or a digit').waitFor();
  await field.press('Enter');
  assert.equal(new URL(ada.page.url()).hash, `#${here}`);
  await field.press('Escape');
  assert.equal(await field.inputValue(), here);
  await ada.close();
  await bo.close();
});

test('what waits for the line goes out even when its room was left', async () => {
  const [here, there] = [freshRoom(), freshRoom()];
  const ada = await Person.open(browser, { name: 'Ada', room: here });
  const bo = await Person.open(browser, { name: 'Bo', room: here });
  await ada.cut();
  await ada.say('by the way');
  await ada.page.getByText('waiting for the line').waitFor();
  await ada.page.evaluate((room) => {
    location.hash = room;
  }, there);
  await ada.page.getByLabel(`Message to ${there}`).waitFor();
  await ada.splice();
  await bo.shows(['by the way']);
  await eventually(
    'Ada has left',
    () => bo.people(),
    (people) => people.join() === 'Bo',
  );
  await ada.close();
  await bo.close();
});

test('another name is taken along, without a word of the line that it took', async () => {
  const room = freshRoom();
  const ada = await Person.open(browser, { name: 'Ada', room });
  const bo = await Person.open(browser, { name: 'Bo', room });
  await ada.say('as Ada');
  await bo.shows(['as Ada']);
  const field = ada.page.getByLabel('Your name');
  await field.fill('Countess of Lovelace');
  await field.press('Enter');
  await bo.page.getByText('Ada is now called Countess of Lovelace').waitFor();
  await ada.say('as a countess');
  await bo.shows(['as Ada', 'as a countess']);
  await eventually(
    'the list follows',
    () => bo.people(),
    (people) => people.join() === 'Bo,Countess of Lovelace',
  );
  assert.deepEqual(
    (await ada.notes()).filter((kind) => kind !== 'joined'),
    ['renamed'],
  );
  assert.ok(!(await bo.notes()).includes('left'));
  await ada.close();
  await bo.close();
});

test('a server that gives no token is quoted, and can be asked again', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.route('**/dev/token', (route) =>
    route.fulfill({ status: 403, body: 'no tokens today' }),
  );
  await page.goto(new URL(`/#${freshRoom()}`, server).href);
  await page.getByText('The server ended the connection: no tokens today').waitFor();
  await page.unroute('**/dev/token');
  await page.getByRole('button', { name: 'Connect again' }).click();
  await page.getByTestId('round-trip').waitFor();
  assert.equal(await page.getByRole('alert').count(), 0);
  await context.close();
});

test('a token that the server does not know any more is replaced, without a word', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  let asked = 0;
  await page.route('**/dev/token', (route) => {
    asked++;
    return asked === 1 ? route.fulfill({ json: { token: '.old.' } }) : route.continue();
  });
  await page.goto(new URL(`/#${freshRoom()}`, server).href);
  await page.getByTestId('round-trip').waitFor();
  assert.equal(asked, 2);

  // But a server that likes none of its own tokens is not asked forever.
  await page.unroute('**/dev/token');
  await page.route('**/dev/token', (route) => {
    asked++;
    return route.fulfill({ json: { token: '.old.' } });
  });
  await page.reload();
  await page.getByText(/The server ended the connection: .* \(code 3500\)/).waitFor();
  assert.equal(asked, 4);
  await context.close();
});
