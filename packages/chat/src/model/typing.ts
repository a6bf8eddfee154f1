// Who is typing: word of it lasts a few seconds, then it is forgotten unless it is renewed.

import { signal, type ReadonlySignal } from '@preact/signals';
import type { Author } from './people';

/** How long word of somebody's typing holds, in milliseconds. */
export const HOLDS = 4000;
/**
 * Pause between two words of ours, in milliseconds: shorter than `HOLDS`, so that who types on is
 * seen to.
 */
export const PAUSE = 2000;
/** People who are kept track of. */
const TRACKED = 20;

/** Others who type in a room. */
export class Typists {
  readonly #list = signal<readonly Author[]>([]);
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();

  get list(): ReadonlySignal<readonly Author[]> {
    return this.#list;
  }

  /** Word came that `author` types. */
  heard(author: Author): void {
    const known = this.#timers.get(author.key);
    if (known === undefined && this.#timers.size >= TRACKED) return;
    clearTimeout(known);
    this.#timers.set(
      author.key,
      setTimeout(() => this.stopped(author.key), HOLDS),
    );
    if (known === undefined) this.#list.value = [...this.#list.value, author];
  }

  /** They said it, left, or fell silent. */
  stopped(key: string): void {
    const known = this.#timers.get(key);
    if (known === undefined) return;
    clearTimeout(known);
    this.#timers.delete(key);
    this.#list.value = this.#list.value.filter((author) => author.key !== key);
  }

  clear(): void {
    for (const key of [...this.#timers.keys()]) this.stopped(key);
  }
}

/** Lets a call through at most once in `pause` milliseconds, and at once after `reset`. */
export class Throttle {
  #next = 0;

  constructor(readonly pause: number) {}

  ready(now: number): boolean {
    if (now < this.#next) return false;
    this.#next = now + this.pause;
    return true;
  }

  reset(): void {
    this.#next = 0;
  }
}
