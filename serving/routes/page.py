"""A page to try the endpoint with, and one that describes it: a few files, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

FOLDER: Final = Path(__file__).parents[1] / "page"
PARTS: Final = {
    "page.js": "text/javascript",
    "docs.js": "text/javascript",
    "page.css": "text/css",
}
router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    """Return the page."""
    return FileResponse(FOLDER / "index.html", media_type="text/html")


@router.get("/docs")
async def docs() -> Response:
    """Return the page that describes all operations."""
    return FileResponse(FOLDER / "docs.html", media_type="text/html")


@router.get("/page/{name}")
async def part(name: str) -> Response:
    """Return a script or style of the pages."""
    if name not in PARTS:
        return Response(status_code=404)
    return FileResponse(FOLDER / name, media_type=PARTS[name])


@router.get("/favicon.ico")
async def icon() -> Response:
    """Return nothing: the page has no icon, and browsers ask for one."""
    return Response(status_code=204)
