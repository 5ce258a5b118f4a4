"""Hooks of the documentation site: equations become MathML; links to files outside of docs/ become links to the repository."""

import posixpath
import re

from latex2mathml.converter import convert

#: A code block or inline code, which is left as it is; or an equation between ``$$``.
EQUATION = re.compile(r"(^```.*?^```|`[^`\n]*`)|\$\$(.+?)\$\$", re.DOTALL | re.MULTILINE)
#: A link to a file outside of docs/: its text and its target.
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s]+)\)")


def on_page_markdown(markdown, page, config, files):
    """Called by MkDocs for the text of each page."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def equation(match):
        return match[1] or f'<div class="equation">{convert(match[2].strip(), display="block")}</div>'

    def link(match):
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if path.startswith("docs/"):
            return match[0]
        return f"[{match[1]}]({config.repo_url.rstrip('/')}/blob/main/{path})" if config.repo_url else match[1]

    return OUTSIDE.sub(link, EQUATION.sub(equation, markdown))


def on_page_content(html, page, config, files):
    """Called by MkDocs for the HTML of each page. Docstrings end the text before a literal block with two colons."""
    return html.replace("::</p>", ":</p>")
