/**
 * Small values that outlive a reload, where the browser allows it; where it forbids
 * storage, they live as long as the page.
 */
export interface Kept {
  get(key: string): string | null;
  set(key: string, value: string): void;
  remove(key: string): void;
}

const fallbacks = { localStorage: new Map<string, string>(), sessionStorage: new Map<string, string>() };

export function kept(area: "localStorage" | "sessionStorage"): Kept {
  const memory = fallbacks[area];
  return {
    get(key) {
      try {
        return window[area].getItem(key) ?? memory.get(key) ?? null;
      } catch {
        return memory.get(key) ?? null;
      }
    },
    set(key, value) {
      try {
        window[area].setItem(key, value);
        memory.delete(key);
      } catch {
        memory.set(key, value);
      }
    },
    remove(key) {
      memory.delete(key);
      try {
        window[area].removeItem(key);
      } catch {
        // Nothing is kept where nothing may be kept.
      }
    },
  };
}
