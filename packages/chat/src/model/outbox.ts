// Messages on their way out. Each stays here until the channel gives it back (then it stands in the
// timeline) or the person lets go of it.
//
// They leave one at a time, so that they arrive in the order in which they were written. A message
// whose answer is lost with the line may or may not have arrived. After the line is back the
// recovered publications tell; what is not among them goes out again under the same id, by which
// every page shows it once.

import { signal, type ReadonlySignal } from '@preact/signals';

export type Outgoing = {
  readonly id: string;
  readonly text: string;
  readonly at: number;
  /**
   * `waiting` for the line, `sending`, `accepted` by the server (its publication is on the way), or
   * `failed`: refused for the `reason`.
   */
  readonly state: 'waiting' | 'sending' | 'accepted' | 'failed';
  readonly reason: string;
};

/**
 * What came of an attempt: accepted, refused (saying why), or unknown because the line broke or
 * nobody answered.
 */
export type Attempt =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'unknown' };

/** Most messages that wait at a time. */
export const WAITING = 100;
/** Attempts that end in silence over a line which seems to be up, before the person is asked. */
const SILENT_ATTEMPTS = 3;

export class Outbox {
  readonly #messages = signal<readonly Outgoing[]>([]);
  readonly #publish: (message: Outgoing) => Promise<Attempt>;
  #open = false;
  #busy = false;
  #silent = 0;

  /** `publish` makes one attempt. It never rejects. */
  constructor(publish: (message: Outgoing) => Promise<Attempt>) {
    this.#publish = publish;
  }

  get messages(): ReadonlySignal<readonly Outgoing[]> {
    return this.#messages;
  }

  /** Whether something in here has not reached the server yet, as far as is known. */
  get unsent(): boolean {
    return this.#messages.value.some(({ state }) => state !== 'accepted');
  }

  /** Takes a message. Returns whether there was room for it. */
  add(id: string, text: string, at: number): boolean {
    if (this.#messages.value.length >= WAITING) return false;
    this.#messages.value = [
      ...this.#messages.value,
      { id, text, at, state: 'waiting', reason: '' },
    ];
    void this.#run();
    return true;
  }

  /**
   * Lets messages go out. To be called when the channel is subscribed and what was missed has been
   * seen.
   */
  open(): void {
    this.#open = true;
    void this.#run();
  }

  /** Keeps messages in, until `open`. */
  close(): void {
    this.#open = false;
  }

  /** The channel gave the message back. */
  settle(id: string): void {
    this.#messages.value = this.#messages.value.filter((message) => message.id !== id);
  }

  /** Another attempt for a message that failed. */
  retry(id: string): void {
    this.#update(id, { state: 'waiting', reason: '' });
    void this.#run();
  }

  /** Forgets a message that failed. */
  discard(id: string): void {
    this.#messages.value = this.#messages.value.filter(
      (message) => message.id !== id || message.state !== 'failed',
    );
  }

  async #run(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (;;) {
      const next = this.#messages.value.find(({ state }) => state === 'waiting');
      if (!this.#open || next === undefined) break;
      this.#update(next.id, { state: 'sending' });
      const attempt = await this.#publish(next);
      if (attempt.kind === 'unknown') {
        // While the line is up, silence is the server's; don't knock forever.
        this.#silent = this.#open ? this.#silent + 1 : 0;
        const failed = this.#silent >= SILENT_ATTEMPTS;
        this.#update(
          next.id,
          failed ? { state: 'failed', reason: 'the server does not answer' } : { state: 'waiting' },
        );
        continue;
      }
      this.#silent = 0;
      this.#update(
        next.id,
        attempt.kind === 'accepted'
          ? { state: 'accepted' }
          : { state: 'failed', reason: attempt.reason },
      );
    }
    this.#busy = false;
  }

  #update(id: string, change: Partial<Outgoing>): void {
    this.#messages.value = this.#messages.value.map((message) =>
      message.id === id ? { ...message, ...change } : message,
    );
  }
}
