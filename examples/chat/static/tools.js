// Small tools of the page: how things look that know nothing of rooms.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function avatar(name) {
  const made = element('span', { className: 'avatar', textContent: name === null ? '?' : [...name][0].toUpperCase() });
  made.setAttribute('aria-hidden', 'true');
  let hash = 7;
  for (const letter of name ?? '') hash = (hash * 31 + letter.codePointAt(0)) % 360;
  if (name !== null) made.style.setProperty('--hue', hash);
  made.classList.toggle('nobody', name === null);
  return made;
}

export function time() {
  const now = new Date();
  const text = now.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  return element('time', { dateTime: now.toISOString(), title: now.toLocaleString(), textContent: text });
}

/**
 * Nodes that read "ann, bob, cyd and 7 others", of which `names` are the first ones; each name apart, so that one
 * written right to left turns no other words.
 */
export function list(names, total = names.length) {
  const shown = total > 4 ? names.slice(0, 3) : names;
  const items = shown.map((name) => element('bdi', { textContent: name }));
  if (total > shown.length) items.push(`${(total - shown.length).toLocaleString()} others`);
  const before = (place) => (place === 0 ? '' : place === items.length - 1 ? ' and ' : ', ');
  return items.flatMap((item, place) => [before(place), item]);
}

export function first(values, count) {
  const found = [];
  for (const value of values) {
    if (found.length === count) break;
    found.push(value);
  }
  return found;
}

export function flag(target, name, on) {
  if (on) target.dataset[name] = '';
  else delete target.dataset[name];
}
