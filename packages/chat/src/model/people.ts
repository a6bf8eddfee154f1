// Who is in a room: connections, put together to people.

import { readName, shorten } from './text';

/** What the server vouches for about a connection. */
export type ClientInfo = {
  readonly client: string;
  readonly user: string;
  readonly connInfo?: unknown;
};

/** Someone, as far as a reader is concerned. */
export type Author = {
  /** See `keyOf`. Stable, unique, never shown. */
  readonly key: string;
  readonly name: string;
  /** One of `HUES` colours, the same wherever this person shows up. */
  readonly hue: number;
};

/** Someone who is here. */
export type Person = Author & {
  /** Connections of this person in the room: tabs, mostly. */
  readonly tabs: number;
  readonly you: boolean;
};

/** How many colours the style sheet has for people. */
export const HUES = 12;

/** Connections that are kept track of; in a room beyond that only the head count is right. */
const TRACKED = 2000;

/**
 * The people of one room, from a snapshot (presence) and the news since (join, leave). Ask `list`
 * for what to show.
 */
export class People {
  readonly #you: string;
  readonly #clients = new Map<string, Author>();

  /** `user` is the user id of whoever looks at the page. */
  constructor(user: string) {
    this.#you = keyOf({ client: '', user });
  }

  /** Whether a room of so many connections can be the one that is known here. */
  matches(connections: number): boolean {
    return this.#clients.size === Math.min(connections, TRACKED);
  }

  /** Takes a snapshot for the whole truth. */
  replace(clients: Iterable<ClientInfo>): void {
    this.#clients.clear();
    for (const info of clients) this.#add(info);
  }

  /**
   * A connection came. Returns its person if that is news: nobody of that person was here before.
   */
  join(info: ClientInfo): Author | null {
    const author = authorOf(info);
    const news = !this.has(author.key);
    this.#add(info);
    return news ? author : null;
  }

  /** A connection went. Returns its person if that was the last one. */
  leave(info: ClientInfo): Author | null {
    const author = this.#clients.get(info.client);
    if (author === undefined) return null;
    this.#clients.delete(info.client);
    return this.has(author.key) ? null : author;
  }

  has(key: string): boolean {
    for (const author of this.#clients.values()) {
      if (author.key === key) return true;
    }
    return false;
  }

  /** Everyone once: you first, then by name. */
  list(): Person[] {
    const people = new Map<string, Person>();
    for (const author of this.#clients.values()) {
      const known = people.get(author.key);
      people.set(author.key, {
        ...author,
        tabs: (known?.tabs ?? 0) + 1,
        you: author.key === this.#you,
      });
    }
    return [...people.values()].sort(
      (a, b) =>
        Number(b.you) - Number(a.you) || a.name.localeCompare(b.name) || (a.key < b.key ? -1 : 1),
    );
  }

  #add(info: ClientInfo): void {
    if (this.#clients.size < TRACKED || this.#clients.has(info.client))
      this.#clients.set(info.client, authorOf(info));
  }
}

/**
 * The person behind a connection. The name comes from the connection's info, which whoever made the
 * token wrote.
 */
export function authorOf(info: ClientInfo): Author {
  const key = keyOf(info);
  const given =
    typeof info.connInfo === 'object' && info.connInfo !== null && 'name' in info.connInfo
      ? info.connInfo.name
      : null;
  const name = readName(given) ?? readName(info.user) ?? `guest ${shorten(info.client, 5)}`;
  return { key, name, hue: hueOf(key) };
}

/** Tells people apart: by user, and anonymous connections one by one. */
export function keyOf(info: ClientInfo): string {
  return info.user === '' ? `client ${info.client}` : `user ${info.user}`;
}

/** The colour of a person, from the user id alone: everybody sees the same. FNV-1a. */
export function hueOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % HUES;
}
