"""A page as a test reads it: its elements, what breaks the policy, and fields without labels."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Reader(HTMLParser):
    """All elements of a page with their attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.labelled: set[str] = set()
        self.wrong: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        if self.open:
            self.wrong.append(f"never closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag == "label":
            self.labelled.add(given.get("for", ""))
        if tag not in VOID:
            self.open.append(tag)
        if "label" in self.open:
            given["in-label"] = "yes"

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes what is not open")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style") and data.strip():
            self.wrong.append(f"inline {self.open[-1]}")
        self.text += data

    def find(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            given
            for name, given in self.elements
            if name == tag and all(given.get(key) == value for key, value in attributes.items())
        ]

    def problems(self) -> list[str]:
        """What a strict policy refuses, ids that are there twice, and fields and buttons that nothing names."""
        found = list(self.wrong)
        ids = [given["id"] for _, given in self.elements if "id" in given]
        found += [f"id {one} is there twice" for one in sorted({one for one in ids if ids.count(one) > 1})]
        for tag, given in self.elements:
            found += [f"{tag} has {name}" for name in given if name.startswith("on") or name in ("style", "hx-on")]
            for name in ("href", "src", "action"):
                if not given.get(name, "/").startswith(("/", "#")):
                    found.append(f"{tag} leads to {given[name]}")
            if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
                named = given.get("id") in self.labelled or "in-label" in given or "aria-label" in given
                found += [] if named else [f"{tag} {given.get('name')} has no label"]
            for name in ("aria-labelledby", "aria-describedby"):
                found += [f"{name} {one} is not there" for one in given.get(name, "").split() if one not in ids]
            found += (
                [f"label for {given['for']}"] if tag == "label" and given.get("for", ids and ids[0]) not in ids else []
            )
            found += ["img without alt"] if tag == "img" and "alt" not in given else []
        return found
