// Light, dark, or as the system says.

import { effect, signal } from "@preact/signals";
import { load, save } from "./stored";

export type Theme = "system" | "light" | "dark";

export const theme = signal<Theme>(load("theme", "system"));

export function chooseTheme(to: Theme): void {
  theme.value = to;
  save("theme", to);
}

export function startTheme(): void {
  effect(() => {
    if (theme.value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.value;
  });
}
