// What a reader would complain of on a page: text that is cut off, wide boxes that do not show
// that they scroll, outputs that scroll on a wide screen, and text that is too pale.
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
  const wide = (element) =>
    element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1;
  const overflow = (element) => getComputedStyle(element).overflowX;

  const article = document.querySelector("article") ?? document.querySelector("main"); // the benchmark's
  const scrolls = (element) =>
    [...above(element)].some((one) => article.contains(one) && overflow(one) !== "visible");
  const edge = article.getBoundingClientRect().right;
  const found = new Set();
  // Headings and signatures have a margin of their own on each side; what is in them has not.
  for (const element of article.querySelectorAll("*:not(.headerlink, h1, h2, h3, h4, dt)")) {
    const { right, width } = element.getBoundingClientRect();
    const name = `${element.tagName}.${element.className} ${element.textContent.slice(0, 40)}`;
    if (right > edge + 1 && width > 0 && !scrolls(element.parentElement)) {
      found.add(`wider than the text: ${name}`);
    }
    if (wide(element) && ["hidden", "clip"].includes(overflow(element))) {
      found.add(`cut off: ${name}`);
    }
    if (wide(element) && ["auto", "scroll"].includes(overflow(element))) {
      if (!getComputedStyle(element).backgroundImage.includes("gradient")) {
        found.add(`scrolls without showing it: ${name}`);
      }
      if (innerWidth >= 1400 && element.matches(".cell_output *")) {
        found.add(`an output scrolls on a wide screen: ${name}`);
      }
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
