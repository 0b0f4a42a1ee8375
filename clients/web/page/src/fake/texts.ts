/** What the fake's people are called and say. */

export const PEOPLE = ["marta.olsen", "jonas", "t.whitfield", "priya.raman", "lena", "bruno", "aiko", "support+eu@example.com"];

export const LINES: [who: "me" | "them", text: string][] = [
  ["them", "Morning! Did the new build land?"],
  ["me", "Yes, about an hour ago. Staging looks fine so far."],
  ["me", "I’m watching the error rate for a while before I call it done."],
  ["them", "Good. Let me know if the import job misbehaves again — I kept yesterday’s logs."],
  ["me", "Will do."],
  ["them", "Also: the venue asked for a final number by Thursday. I have us down for eleven, but Sofia might bring her sister, and Paul hasn’t answered at all."],
  ["me", "Let’s say twelve. One spare chair never hurt anybody."],
  ["them", "Twelve it is 🙂"],
  ["them", "Lunch at the usual place?"],
  ["me", "Give me ten minutes."],
  ["them", "No rush, I’ll get us a table by the window."],
  ["me", "Here is the address again:\nHarbour Street 14\n(second door, the green one)"],
  ["them", "Perfect, thanks."],
];

const MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0324\u0325";

export const HOSTILE_TEXTS = [
  "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>",
  "\u202Ethis text is turned around and never turned back",
  `marks: z${MARKS.repeat(715)} end`,
  `${"unbreakable".repeat(60)}`,
  "👩‍👩‍👧‍👦👍🏽🇳🇴 family, thumb and flag",
  "שלום, this is mixed עם עברית and English",
  "  spaces   are    kept\n\n\n\tand tabs and lines  ",
  "a\u2028b\u0000c\u200B\uFEFFd",
];

export const HOSTILE_NAMES = [
  "<b onclick=alert(1)>bold</b>",
  "\u202Eevil\u2066name",
  `z${MARKS.repeat(100)}`,
  "name".repeat(16),
];
