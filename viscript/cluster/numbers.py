"""Ids of launches that are unique in a cluster and short: hosts take them from blocks of a hundred. Pure."""

from __future__ import annotations

from msgspec import Struct, structs

BLOCK = 100  # ids handed out at a time
LOW = 50  # a host with fewer left asks for more


class Block(Struct, frozen=True):
    """The ids from `first` to `last`, both of them too."""

    first: int
    last: int


class Numbers(Struct, frozen=True):
    """What a host may still use: `blocks` in order, none of it used."""

    blocks: tuple[Block, ...] = ()

    @property
    def left(self) -> int:
        return sum(block.last - block.first + 1 for block in self.blocks)

    def take(self) -> tuple[int, Numbers] | None:
        """The next id, and what is left without it; None when nothing is."""
        if not self.blocks:
            return None
        head, *rest = self.blocks
        tail = [Block(head.first + 1, head.last)] if head.first < head.last else []
        return head.first, Numbers((*tail, *rest))

    def with_block(self, block: Block) -> Numbers:
        """`block` behind what is there; the same one again changes nothing."""
        if any(b.first <= block.last and block.first <= b.last for b in self.blocks):
            return self
        return structs.replace(self, blocks=(*self.blocks, block))


def after(number: int) -> Block:
    """What is left of the block that `number`, used already, is in; a whole one when that was its last."""
    return Block(number + 1, (number // BLOCK + 1) * BLOCK)
