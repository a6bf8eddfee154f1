// Whether what a page says can be read by everybody.

import assert from 'node:assert/strict';

/**
 * Every visible text stands out from what is behind it: 4.5 to 1, as WCAG 2.2 asks for in 1.4.3. There are `least`
 * of them.
 */
export async function contrast(page, least = 20) {
  const weak = await page.evaluate((least) => {
    const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgba = (colour) => {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
      return context.getImageData(0, 0, 1, 1).data;
    };
    const luminance = ([r, g, b]) => {
      const [x, y, z] = [r, g, b].map((c) =>
        c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4,
      );
      return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
      for (let at = element; at !== null; at = at.parentElement) {
        const colour = rgba(getComputedStyle(at).backgroundColor);
        if (colour[3] === 255) return colour;
      }
      return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const weak = [];
    let seen = 0;
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      const text = walker.currentNode.textContent.trim();
      if (
        text === '' ||
        !element.checkVisibility({ visibilityProperty: true }) ||
        element.matches(':disabled, :disabled *')
      )
        continue;
      const [a, b] = [
        luminance(rgba(getComputedStyle(element).color)),
        luminance(behind(element)),
      ].sort((x, y) => y - x);
      seen++;
      if ((a + 0.05) / (b + 0.05) < 4.5)
        weak.push(`${text.slice(0, 40)}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
    }
    if (seen < least) weak.push(`only ${seen} texts were looked at`);
    return weak;
  }, least);
  assert.deepEqual(weak, [], 'texts without enough contrast');
}
