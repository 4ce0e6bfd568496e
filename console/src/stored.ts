// What the browser remembers between visits; without its permission nothing.

export function load<T>(name: string, otherwise: T): T {
  try {
    const text = localStorage.getItem(`natalog:${name}`);
    return text === null ? otherwise : (JSON.parse(text) as T);
  } catch {
    return otherwise;
  }
}

export function save(name: string, value: unknown): void {
  try {
    localStorage.setItem(`natalog:${name}`, JSON.stringify(value));
  } catch {
    // private windows and full stores: the page works without
  }
}
