// The few pictures of the page. All of them are decoration: what they stand by says the same in
// words.

import type { ComponentChildren } from 'preact';

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg
      class="icon"
      viewBox="0 0 20 20"
      width="20"
      height="20"
      fill="none"
      stroke="currentColor"
      stroke-width="1.6"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      {children}
    </svg>
  );
}

/**
 * The taut-line hitch: a loop around a post, tied back to its own line by turns which slide until
 * they are loaded.
 */
export function Hitch() {
  return (
    <svg
      class="hitch"
      viewBox="0 0 64 32"
      fill="none"
      stroke-linecap="round"
      aria-hidden="true"
      focusable="false"
    >
      <circle class="hitch-post" cx="50.5" cy="16" r="5" />
      <path
        class="hitch-rope"
        d="M2 16h22c10 0 14-11.5 26.5-11.5a11.5 11.5 0 0 1 0 23C38 27.5 34 16 24 16"
      />
      <path class="hitch-turns" d="m12.5 21.5 3-11M19.5 21.5l3-11M26.5 21.5l3-11" />
    </svg>
  );
}

export const Scissors = () => (
  <Icon>
    <circle cx="5" cy="5.5" r="2.2" />
    <circle cx="5" cy="14.5" r="2.2" />
    <path d="M6.9 6.8 17 14.2M6.9 13.2 17 5.8" />
  </Icon>
);

export const Send = () => (
  <Icon>
    <path d="M3.5 10h12M10.5 4.5 16 10l-5.5 5.5" />
  </Icon>
);

export const Down = () => (
  <Icon>
    <path d="M10 4v11.5M5 11l5 5 5-5" />
  </Icon>
);

export const Persons = () => (
  <Icon>
    <circle cx="7.5" cy="7" r="2.8" />
    <path d="M2.5 16c.5-3.2 2.5-4.5 5-4.5s4.5 1.3 5 4.5M12.5 4.6a2.6 2.6 0 0 1 0 4.9M14.5 12c1.7.6 2.7 1.9 3 4" />
  </Icon>
);

export const Close = () => (
  <Icon>
    <path d="m5 5 10 10M15 5 5 15" />
  </Icon>
);
