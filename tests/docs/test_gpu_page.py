"""docs/howto/gpu.md: its table of precisions is what the script makes of the measurements."""

import json

from helpers_scripts import script_of


def test_the_table_of_precisions_is_what_its_script_writes():
    with script_of("precision_accuracy") as script:
        beds = json.loads(script.RESULT.read_text(encoding="utf-8"))["beds"]
        page = script.PAGE.read_text(encoding="utf-8")
        assert script.filled(page, beds) == page
        assert all(row["summary"] == script.summary(row["runs"]) for row in beds.values())
