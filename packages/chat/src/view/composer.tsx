// Where a message is written.

import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { Author } from '../model/people';
import type { Room } from '../model/room';
import { MESSAGE_LENGTH } from '../model/text';
import { listed } from './format';
import { Send } from './icons';

/** From how many characters before the limit on the writer is told of it. */
const WARN = 200;

export function Composer({ room, up }: { room: Room; up: boolean }) {
  // Signals, not state: Enter may follow a letter before the page has drawn that letter.
  const text = useSignal('');
  const full = useSignal(false);
  const area = useRef<HTMLTextAreaElement>(null);
  const refused = room.state.value.kind === 'refused';

  // On a touch screen focus brings up the keyboard, which nobody asked for yet.
  useEffect(() => {
    if (matchMedia('(hover: hover)').matches) area.current?.focus({ preventScroll: true });
  }, [room]);
  useEffect(() => fit(area.current), [text.value]);

  const submit = () => {
    const message = text.value.trim();
    if (message === '') return;
    full.value = !room.say(message);
    if (!full.value) text.value = '';
    area.current?.focus();
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <p class="typing" data-testid="typing">
        {typingText(room.typists.list.value)}
      </p>
      <div class="composer-box">
        <label class="visually-hidden" for="message">
          Message to {room.name}
        </label>
        <textarea
          id="message"
          ref={area}
          rows={1}
          maxLength={MESSAGE_LENGTH}
          placeholder={`Message #${room.name}`}
          value={text.value}
          disabled={refused}
          enterkeyhint="send"
          autocomplete="off"
          aria-describedby="composer-hint"
          onInput={(event) => {
            text.value = event.currentTarget.value;
            if (text.value !== '') room.typed();
          }}
          onKeyDown={(event) => {
            // While a script's characters are being composed, Enter takes what was composed.
            if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            submit();
          }}
        />
        <button
          type="submit"
          class="button button-send"
          aria-label="Send"
          disabled={refused || text.value.trim() === ''}
        >
          <Send />
        </button>
      </div>
      <p class="hint" id="composer-hint">
        {hint(text.value, full.value, up)}
      </p>
    </form>
  );
}

function hint(text: string, full: boolean, up: boolean): string {
  if (full) return 'Too many messages are waiting for the line. This one stays here.';
  if (text.length > MESSAGE_LENGTH - WARN) return `${MESSAGE_LENGTH - text.length} characters left`;
  if (!up) return 'The line is down. What you say waits here, and goes out when it is back.';
  return 'Enter sends, Shift + Enter begins a new line';
}

function typingText(authors: readonly Author[]): string {
  if (authors.length === 0) return '';
  if (authors.length > 3) return 'Several people are typing …';
  return `${listed(authors.map(({ name }) => name))} ${authors.length === 1 ? 'is' : 'are'} typing …`;
}

/** Makes the box as high as its text; the style sheet bounds it. */
function fit(area: HTMLTextAreaElement | null): void {
  if (area === null) return;
  area.style.height = 'auto';
  area.style.height = `${area.scrollHeight}px`;
}
