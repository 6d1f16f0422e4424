// The texts of a page that lie over one another, as `one / other`: what is scrolled out of a box does not count.
() => {
  const within = (box, element) => {
    const seen = { left: box.left, right: box.right, top: box.top, bottom: box.bottom };
    for (let above = element; above !== document.documentElement; above = above.parentElement) {
      const style = getComputedStyle(above);
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      const edge = above.getBoundingClientRect();
      seen.left = Math.max(seen.left, edge.left);
      seen.right = Math.min(seen.right, edge.right);
      seen.top = Math.max(seen.top, edge.top);
      seen.bottom = Math.min(seen.bottom, edge.bottom);
    }
    return seen;
  };
  const boxes = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.textContent.trim();
    if (!text || !element.checkVisibility({ visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(texts.currentNode);
    for (const line of range.getClientRects()) {
      const box = within(line, element);
      if (box.right - box.left > 1 && box.bottom - box.top > 1) boxes.push({ text: text.slice(0, 40), ...box });
    }
  }
  boxes.sort((one, other) => one.top - other.top);
  const found = [];
  boxes.forEach((one, place) => {
    for (let next = place + 1; next < boxes.length && boxes[next].top < one.bottom; next++) {
      const other = boxes[next];
      const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const down = Math.min(one.bottom, other.bottom) - other.top;
      // A line of text is higher than its letters, so lines that stand close share a few pixels.
      if (across > 2 && down > 5) found.push(`${one.text} / ${other.text}`);
    }
  });
  return found;
};
