"""Pages for eyes: rows and files of the service as HTML, for a browser that is logged in.

Pages are rendered here and work without scripts: links, and forms whose answer is another page. Scripts only add to
them: htmx puts a part of a page in its place (a lookup's answer, a job's progress), and three small modules of our own
draw charts on uPlot and follow a job's events. Both libraries come with the package, so that nothing is fetched from
another host; the policy of `fn3hw.service.api.app` forbids inline scripts, inline styles and eval.

Who looks is in a cookie (`login`), and what a token of the API may do is what its browser may do: `shared.sees`. Pages
ask for jobs as the API does, through the desk; they compute nothing that a verb could (`curves` asks the cost model).
What is slow to make and never changes is kept in memory (`kept`).
"""

from fn3hw.service.pages.shared import error_page, wants_page
from fn3hw.service.pages.site import add_pages

__all__ = ["add_pages", "error_page", "wants_page"]
