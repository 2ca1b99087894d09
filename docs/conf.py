"""Settings of Sphinx for docs/build_site.py. Nothing here may make a page ask the network for anything."""

project = "flightcache"
html_title = "flightcache"
copyright = "the flightcache authors"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = [".doctrees"]
myst_heading_anchors = 6  # as on code-hosting sites: pages link to headings by their words
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "default"
