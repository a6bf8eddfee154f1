// The side panel: the room, you, and who else is here.

import { useSignal } from '@preact/signals';
import type { Identity } from '../model/identity';
import type { Line } from '../model/line';
import type { Room } from '../model/room';
import { NAME_LENGTH, readName, readRoom, ROOM_LENGTH } from '../model/text';
import { counted } from './format';
import { Avatar } from './messages';

/** People that are listed; beyond that they are counted. */
const LISTED = 60;

export function Side({ line, room, me }: { line: Line; room: Room; me: Identity }) {
  return (
    <>
      <Field
        label="Room"
        prefix="#"
        value={room.name}
        limit={ROOM_LENGTH}
        read={readRoom}
        wrong="A room needs a letter or a digit in its name."
        take={(name) => {
          location.hash = name;
        }}
      />
      <Field
        label="Your name"
        value={me.name.value}
        limit={NAME_LENGTH}
        read={readName}
        wrong="A name needs something to show."
        take={(name) => line.rename(name)}
      />
      <Here room={room} />
      <p class="second-tab">
        <a href={`#${room.name}`} target="_blank" rel="noopener">
          Open a second tab
        </a>{' '}
        to be somebody else there.
      </p>
    </>
  );
}

type FieldProps = {
  label: string;
  prefix?: string;
  value: string;
  limit: number;
  /** What the input means, or null if nothing. */
  read: (input: string) => string | null;
  wrong: string;
  take: (value: string) => void;
};

/**
 * A value that can be changed in place: Enter or leaving the field takes it, Escape puts the old
 * one back.
 */
function Field({ label, prefix, value, limit, read, wrong, take }: FieldProps) {
  const draft = useSignal<string | null>(null);
  const id = `field-${label.toLowerCase().replace(' ', '-')}`;
  const meaning = () => (draft.value === null ? value : read(draft.value));
  const bad = meaning() === null;

  const commit = () => {
    const meant = meaning();
    if (meant === null) return;
    draft.value = null;
    if (meant !== value) take(meant);
  };

  return (
    <form
      class="field"
      onSubmit={(event) => {
        event.preventDefault();
        commit();
      }}
    >
      <label for={id}>{label}</label>
      <div class="field-box">
        {prefix !== undefined && <span aria-hidden="true">{prefix}</span>}
        <input
          id={id}
          value={draft.value ?? value}
          maxLength={limit}
          spellcheck={false}
          autocomplete="off"
          autocapitalize="off"
          aria-invalid={bad}
          aria-describedby={bad ? `${id}-wrong` : undefined}
          onInput={(event) => (draft.value = event.currentTarget.value)}
          onBlur={() => (meaning() === null ? (draft.value = null) : commit())}
          onKeyDown={(event) => {
            if (event.key !== 'Escape' || draft.value === null) return;
            event.stopPropagation();
            draft.value = null;
          }}
        />
      </div>
      {bad && (
        <p class="wrong" id={`${id}-wrong`} role="alert">
          {wrong}
        </p>
      )}
    </form>
  );
}

function Here({ room }: { room: Room }) {
  const people = room.people.value;
  const stale = room.state.value.kind !== 'joined';
  if (people === null) return <p class="here-unknown">This server does not tell who is here.</p>;
  return (
    <section class="here" data-stale={stale} aria-label="People here">
      <h2>
        {stale ? 'Here, as far as we know' : 'Here now'}{' '}
        <span class="figure">{people.length.toLocaleString('en')}</span>
      </h2>
      <ul data-testid="people">
        {people.slice(0, LISTED).map((person) => (
          <li key={person.key} data-testid="person">
            <Avatar author={person} />
            <span class="name">{person.name}</span>
            {person.you && <span class="tag">you</span>}
            {person.tabs > 1 && <span class="tabs">{counted(person.tabs, 'tab', 'tabs')}</span>}
          </li>
        ))}
      </ul>
      {people.length > LISTED && (
        <p class="here-more">and {counted(people.length - LISTED, 'other', 'others')}</p>
      )}
    </section>
  );
}
