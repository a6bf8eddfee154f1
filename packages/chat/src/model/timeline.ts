// What a room shows from top to bottom: messages in the order of the channel, each once, and notes
// on what happened between them.
//
// Messages reach a page three ways (live, recovered after a broken line, read from the history) and
// may do so more than once. Offsets put them in order; offset and message id together keep each to
// one entry. Nothing in here does I/O.

import type { Author } from './people';
import type { Message } from './text';

/** A publication, as the timeline wants it. */
export type Post = {
  readonly message: Message;
  /** Null: published by a backend through the HTTP API. */
  readonly author: Author | null;
  readonly you: boolean;
  /** Position in the channel's stream; null where the channel keeps no history. */
  readonly offset: number | null;
};

export type Note =
  | {
      readonly kind: 'joined' | 'returned' | 'left';
      readonly who: readonly Author[];
      readonly more: number;
    }
  | { readonly kind: 'renamed'; readonly from: string; readonly who: Author }
  /** The line broke. */
  | { readonly kind: 'down' }
  /** The line is back, and the server gave all that was missed. `away` is in milliseconds. */
  | { readonly kind: 'recovered'; readonly away: number; readonly count: number }
  /** The line is back, but the server could not tell all that was missed. */
  | { readonly kind: 'unrecovered'; readonly away: number }
  /** That many messages lie between those above and those below, and can't be had here. */
  | { readonly kind: 'gap'; readonly missing: number }
  /** The stream began anew: the server was restarted, or forgot the channel. */
  | { readonly kind: 'restarted' };

export type Entry = { readonly key: string; readonly at: number } & (
  | (Post & { readonly kind: 'message'; readonly epoch: string; readonly recovered: boolean })
  | { readonly kind: 'note'; readonly note: Note }
);

/** Entries that a room keeps; the oldest go first. */
export const KEPT = 1000;
/** Names that one note lists. */
const LISTED = 3;

export class Timeline {
  #entries: readonly Entry[] = [];
  readonly #seen = new Set<string>();
  #epoch: string | null = null;
  /**
   * Highest offset up to which nothing is missing since the page began to look; null before it did.
   */
  #top: number | null = null;
  #notes = 0;

  /** Oldest first. A new array after each change. */
  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** The position up to which everything was seen. */
  get top(): number | null {
    return this.#top;
  }

  /**
   * A subscription begins, at `offset` of `epoch`. The first one is where the page begins to look.
   * A later one in the same epoch goes on from what was seen; in a new epoch nothing of the stream
   * was seen.
   */
  start(epoch: string, offset: number, now: number): void {
    if (this.#epoch === epoch) return;
    this.#top = this.#epoch === null ? offset : 0;
    if (this.#epoch !== null) this.note({ kind: 'restarted' }, now);
    this.#epoch = epoch;
  }

  /**
   * Takes a publication that came over the line. Returns whether it was new. Offsets that are left
   * out get a `gap` note: the server promises that this doesn't happen, and the page looks rather
   * than believes.
   */
  add(post: Post, now: number, recovered = false): boolean {
    if (post.offset !== null && this.#top !== null) {
      if (post.offset > this.#top + 1)
        this.note({ kind: 'gap', missing: post.offset - this.#top - 1 }, now);
      this.#top = Math.max(this.#top, post.offset);
    }
    return this.#insert(post, now, recovered);
  }

  /**
   * Takes a page of history, oldest first, whose stream stands at `offset` of `epoch`. The first
   * one gives the room its past. One after a failed recovery closes as much of the hole as it can,
   * and says how much it can't.
   */
  addHistory(page: readonly Post[], epoch: string, offset: number, now: number): void {
    if (epoch !== this.#epoch) return; // The stream began anew meanwhile; the next subscription tells.
    const top = this.#top ?? offset;
    const beyond = page.filter((post) => post.offset !== null && post.offset > top);
    const missing = (beyond[0]?.offset ?? offset + 1) - top - 1;
    if (missing > 0) this.note({ kind: 'gap', missing }, now);
    for (const post of page) this.#insert(post, now, false);
    this.#top = Math.max(top, offset);
  }

  note(note: Note, now: number): void {
    const last = this.#entries.at(-1);
    if (
      'more' in note &&
      last?.kind === 'note' &&
      'more' in last.note &&
      last.note.kind === note.kind
    ) {
      // People who come one after the other share a line, so that a crowd doesn't push the talk
      // away.
      const listed = last.note.who;
      const who = [
        ...listed,
        ...note.who.filter(({ key }) => !listed.some((known) => known.key === key)),
      ];
      const merged: Note = {
        kind: note.kind,
        who: who.slice(0, LISTED),
        more: last.note.more + note.more + Math.max(0, who.length - LISTED),
      };
      this.#entries = [...this.#entries.slice(0, -1), { ...last, note: merged }];
      return;
    }
    this.#push({ kind: 'note', key: `note ${this.#notes++}`, at: now, note });
  }

  /** Whether a message with this id was seen from this author. */
  has(author: string, id: string): boolean {
    return this.#seen.has(`${author} ${id}`);
  }

  #insert(post: Post, now: number, recovered: boolean): boolean {
    const epoch = this.#epoch ?? '';
    const { author, message, offset } = post;
    const names: string[] = [];
    if (offset !== null) names.push(`@${offset} ${epoch}`);
    if (author !== null && message.id !== null) names.push(`${author.key} ${message.id}`);
    if (names.some((name) => this.#seen.has(name))) {
      // The same message under a second offset is a repeat by its sender: remember both names.
      for (const name of names) this.#seen.add(name);
      return false;
    }
    for (const name of names) this.#seen.add(name);
    const entry: Entry = {
      kind: 'message',
      key: names.at(-1) ?? `live ${this.#notes++}`,
      at: message.at ?? now,
      epoch,
      recovered,
      ...post,
    };
    const later = (other: Entry) =>
      other.kind === 'message' &&
      other.epoch === epoch &&
      other.offset !== null &&
      offset !== null &&
      other.offset > offset;
    const index = this.#entries.findIndex(later);
    if (index < 0) {
      this.#push(entry);
    } else {
      this.#entries = [...this.#entries.slice(0, index), entry, ...this.#entries.slice(index)];
      this.#trim();
    }
    return true;
  }

  #push(entry: Entry): void {
    this.#entries = [...this.#entries, entry];
    this.#trim();
  }

  #trim(): void {
    if (this.#entries.length > KEPT)
      this.#entries = this.#entries.slice(this.#entries.length - KEPT);
    // An entry has two names; the other half leaves room for repeats.
    for (const name of this.#seen) {
      if (this.#seen.size <= 4 * KEPT) break;
      this.#seen.delete(name);
    }
  }
}
