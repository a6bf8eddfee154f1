// Who this tab is. Each tab is somebody else, so that one browser is enough to try a chat; a name
// that was chosen is kept for the next visit.

import { signal, type ReadonlySignal } from '@preact/signals';
import { authorOf, type Author } from './people';
import { randomId, readName } from './text';

/** Names for those who have not chosen one: birds of the sea and its shores. */
const BIRDS = [
  'Albatross',
  'Auk',
  'Avocet',
  'Cormorant',
  'Curlew',
  'Dunlin',
  'Eider',
  'Fulmar',
  'Gannet',
  'Guillemot',
  'Kittiwake',
  'Osprey',
  'Pelican',
  'Petrel',
  'Plover',
  'Puffin',
  'Sanderling',
  'Shearwater',
  'Skua',
  'Tern',
];

/** The person in front of this tab. */
export class Identity {
  /** Random, kept for the life of the tab. */
  readonly user: string;
  readonly #name: ReturnType<typeof signal<string>>;

  /** `tab` remembers for the life of the tab, `visits` for longer; either may refuse to. */
  constructor(
    private readonly tab: Storage | null,
    private readonly visits: Storage | null,
    random: () => number = Math.random,
  ) {
    this.user = recall(tab, 'user') ?? randomId();
    const name =
      readName(recall(tab, 'name')) ??
      readName(recall(visits, 'name')) ??
      BIRDS[Math.floor(random() * BIRDS.length)] ??
      'Tern';
    this.#name = signal(name);
    keep(tab, 'user', this.user);
    keep(tab, 'name', name);
  }

  get name(): ReadonlySignal<string> {
    return this.#name as ReadonlySignal<string>;
  }

  /** How others see this person, as far as it is known here. */
  get author(): Author {
    return authorOf({ client: '', user: this.user, connInfo: { name: this.name.value } });
  }

  /** Takes another name. Returns whether it is one, and another. */
  rename(input: string): boolean {
    const name = readName(input);
    if (name === null || name === this.name.value) return false;
    this.#name.value = name;
    keep(this.tab, 'name', name);
    keep(this.visits, 'name', name);
    return true;
  }
}

/** The browser's storage, or null where it is turned off: asking for it throws then. */
export function storageOf(open: () => Storage): Storage | null {
  try {
    return open();
  } catch {
    return null;
  }
}

const PREFIX = 'tautline.chat.';

function recall(storage: Storage | null, key: string): string | null {
  return storage?.getItem(PREFIX + key) ?? null;
}

function keep(storage: Storage | null, key: string, value: string): void {
  try {
    storage?.setItem(PREFIX + key, value);
  } catch {
    // Full, or forbidden: then it is kept for as long as the page is open.
  }
}
