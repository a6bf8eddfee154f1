// What got through to a site is remembered for a while, so that not every page load has to find
// out again: for a minute at first, as a server may have been busy or a network bad, and twice as long each time that it
// turns out to be so still. Anything in the storage may be missing, refused or nonsense; what it doesn't take is known for as long
// as the page lives, so that a socket which failed is not tried for ever.

/** What of a browser's `Storage` is used. */
export type Store = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;

export class Memory {
  readonly #store: Store | null;
  readonly #lasts: number;

  /** `lasts` is the longest time, in milliseconds. Without a store it is remembered by the page alone. */
  constructor(store: Store | null, lasts: number) {
    this.#store = store;
    this.#lasts = lasts;
  }

  /** What is remembered of the site, unless that was too long ago. */
  recall(site: string): string | null {
    const [value, until] = this.#known(site);
    const left = until - Date.now();
    // A clock that was set back must not make it last for ever.
    return value && left > 0 && left <= this.#lasts ? value : null;
  }

  /** Remembers. What is remembered already isn't prolonged by being confirmed: it is tried anew in the end. */
  keep(site: string, value: string): void {
    if (this.recall(site) === value) return;
    const [before, , lasted] = this.#known(site);
    const lasts = Math.min(before === value && lasted > 0 ? 2 * lasted : FIRST, this.#lasts);
    const kept = `${value}|${Date.now() + lasts}|${lasts}`;
    try {
      this.#store?.setItem(key(site), kept);
    } catch {
      // Full, or forbidden: then the next page finds out by itself.
    }
    if (this.#read(key(site)) !== kept) page.set(key(site), kept);
  }

  forget(site: string): void {
    page.delete(key(site));
    try {
      this.#store?.removeItem(key(site));
    } catch {
      // As above.
    }
  }

  /** What there was, until when, and for how long; whether or not that is over. */
  #known(site: string): [string, number, number] {
    const [value = '', until, lasted] = (this.#read(key(site)) ?? page.get(key(site)) ?? '').split('|');
    return [value, Number(until), Number(lasted)];
  }

  #read(key: string): string | null {
    try {
      return this.#store?.getItem(key) ?? null;
    } catch {
      return null;
    }
  }
}

/** How long it is remembered at first, in milliseconds. */
const FIRST = 60_000;

/** What no store has taken. A page talks to few sites. */
const page = new Map<string, string>();

/** The page's storage, where there is one. */
export function localStore(): Store | null {
  try {
    return globalThis.localStorage ?? null;
  } catch {
    return null;
  }
}

/** Notes that the user of a name has left, for pages that come back later. */
export function leave(name: string): void {
  const all = departures().filter(([known]) => known !== hash(name));
  all.push([hash(name), Date.now()]);
  try {
    localStore()?.setItem(LEFT, JSON.stringify(all.slice(-MOST_LEFT)));
  } catch {
    // Full, or forbidden.
  }
}

/** Whether the user of a name has left since that time, in milliseconds of Unix time. */
export function hasLeft(name: string, since: number): boolean {
  return departures().some(([known, time]) => known === hash(name) && time >= since);
}

function departures(): [string, number][] {
  try {
    const all: unknown = JSON.parse(localStore()?.getItem(LEFT) ?? '[]');
    return Array.isArray(all) ? all.filter((one): one is [string, number] => Array.isArray(one)) : [];
  } catch {
    return [];
  }
}

/** Names have users and logins in them, which are nothing to store. FNV-1a, 64 bits. */
function hash(name: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(name)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return hash.toString(36);
}

const LEFT = 'tautline.left';
const MOST_LEFT = 32;
const key = (site: string) => `tautline.carrier ${site}`;
