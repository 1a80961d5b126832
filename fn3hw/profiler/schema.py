"""The published JSON schema of profile files; ``python -m fn3hw.profiler.schema`` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fn3hw.profiler.record import SCHEMA, Profile
from fn3hw.space.files import write_text

PUBLISHED = Path(__file__).parents[2] / "profiles" / "schema.json"


def json_schema() -> dict[str, Any]:
    """The JSON schema of profile files, as published in profiles/schema.json."""
    schema = Profile.model_json_schema(by_alias=True, mode="validation")
    profile = schema["$defs"]["Profile"]
    profile["properties"]["sha256"] = {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "SHA-256 of the file without this entry, as JSON with sorted keys and no spaces.",
    }
    # The file has both; a profile within it, which the file's own started from, is covered by the file's checksum.
    schema["required"] = ["schema", "sha256"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


if __name__ == "__main__":
    write_text(PUBLISHED, json.dumps(json_schema(), indent=1) + "\n")
