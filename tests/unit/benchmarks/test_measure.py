"""Pages of benchmarks with several sections."""

from benchmarks.measure import replace_section


def test_a_section_replaces_the_one_with_its_heading():
    page = "# One\n\n| 1 |\n\n## Two\n\n| 2 |\n"
    assert replace_section(page, "## Two\n\n| 3 |\n") == "# One\n\n| 1 |\n\n## Two\n\n| 3 |\n"
    assert replace_section(page, "# One\n\n| 3 |\n") == "# One\n\n| 3 |\n\n## Two\n\n| 2 |\n"


def test_a_new_section_is_the_last_one():
    assert replace_section("", "# One\n\n| 1 |\n") == "# One\n\n| 1 |\n"
    assert replace_section("# One\n\n| 1 |\n", "## Two\n") == "# One\n\n| 1 |\n\n## Two\n"
