// What a reader would complain of on a page: text that is cut off, and text that is too pale.
(() => {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const above = function* (element) {
    for (let one = element; one; one = one.parentElement) yield one;
  };
  const background = (element) => {
    for (const one of above(element)) {
      const color = numbers(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  const scrolls = (element) =>
    [...above(element)].some((one) => ["auto", "scroll"].includes(getComputedStyle(one).overflowX));

  const width = document.documentElement.clientWidth;
  const found = new Set();
  for (const element of document.querySelectorAll("article *")) {
    if (element.getBoundingClientRect().right > width + 1 && !scrolls(element.parentElement)) {
      found.add(`wider than the window: ${element.tagName} ${element.textContent.slice(0, 40)}`);
    }
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const style = getComputedStyle(element);
    const { width: across, height } = element.getBoundingClientRect();
    if (!texts.currentNode.textContent.trim() || !across || !height || style.visibility === "hidden") {
      continue;
    }
    const [one, other] = [numbers(style.color), background(element)].map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) {
      found.add(`contrast ${contrast.toFixed(1)}: ${element.tagName}.${element.className}`);
    }
  }
  return [...found];
})();
