"""The FastAPI app of the harness: a hello and a JSON body checked by pydantic both ways."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(openapi_url=None)


class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []
    note: str = ""


@app.get("/")
async def hello() -> dict[str, str]:
    return {"message": "Hello, world!"}


@app.post("/items")
async def create(item: Item) -> Item:
    item.price = round(item.price * 1.2, 2)
    return item
