"""A page to try the endpoint with: three files, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

FOLDER: Final = Path(__file__).parents[1] / "page"
router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    """Return the page."""
    return FileResponse(FOLDER / "index.html", media_type="text/html")


@router.get("/page/{name}")
async def part(name: str) -> Response:
    """Return the page's script or style."""
    types = {"page.js": "text/javascript", "page.css": "text/css"}
    if name not in types:
        return Response(status_code=404)
    return FileResponse(FOLDER / name, media_type=types[name])


@router.get("/favicon.ico")
async def icon() -> Response:
    """Return nothing: the page has no icon, and browsers ask for one."""
    return Response(status_code=204)
