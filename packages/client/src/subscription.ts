// One tab's view of a channel: where it is, and what it takes.
//
// A publication is taken only if it follows the position, so whatever the leader says twice, or leaves out, comes
// to the page once and whole.

import type { Position, Publication } from './lead';

/**
 * One of a tab's subscriptions. Events: `publication` (a `MessageEvent` whose data is a `Publication`),
 * `subscribed` (data: `{ recovered }`; if that is false, something may be missing: load it anew) and `error`
 * (data: `{ code, reason, final }`; if that is true, it is over).
 */
export class SharedSubscription extends EventTarget {
  #position: Position | null;
  #leave: ((subscription: SharedSubscription) => void) | null;

  /** @internal */
  constructor(
    readonly channel: string,
    since: Position | null,
    leave: (subscription: SharedSubscription) => void,
  ) {
    super();
    this.#position = since;
    this.#leave = leave;
  }

  /** Up to where this subscription has all; `null` before it is known, and where there is no history. */
  get position(): Position | null {
    return this.#position;
  }

  unsubscribe(): void {
    const leave = this.#leave;
    this.#leave = null;
    leave?.(this);
  }

  /** @internal The channel is at `position`, and what came behind ours comes, if it was recovered. */
  begins(position: Position | null, recovered: boolean): void {
    const mine = this.#position;
    const whole =
      mine === null || position === null
        ? mine === null
        : mine.epoch === position.epoch && (recovered || mine.offset === position.offset);
    if (mine === null || !whole) this.#position = position;
    this.#tell('subscribed', { recovered: whole });
  }

  /** @internal Whether it follows what we have; if not, it isn't taken. */
  take(epoch: string, pub: Publication): boolean {
    const mine = this.#position;
    // Without an epoch there are no positions to go by, only what comes.
    if (epoch !== '' && pub.offset !== undefined && pub.offset > 0) {
      // What is missed before the position is known comes behind it.
      if (mine === null) return true;
      if (epoch !== mine.epoch || pub.offset > mine.offset + 1) return false;
      if (pub.offset <= mine.offset) return true;
      this.#position = { offset: pub.offset, epoch };
    }
    this.#tell('publication', pub);
    return true;
  }

  /** @internal */
  failed(code: number, reason: string, final: boolean): void {
    if (final) this.#leave = null;
    this.#tell('error', { code, reason, final });
  }

  #tell(type: string, data: unknown): void {
    if (this.#leave !== null || type === 'error') this.dispatchEvent(new MessageEvent(type, { data }));
  }
}
