"""Ids of launches that are unique in a cluster and short: hosts take them from blocks of a hundred. Pure."""

from __future__ import annotations

from msgspec import Struct, structs

BLOCK = 100  # ids handed out at a time
MAX_RANGES = 64  # that are kept apart for each host
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


def holds(blocks: tuple[Block, ...], number: int) -> bool:
    return any(block.first <= number <= block.last for block in blocks)


def joined(blocks: tuple[Block, ...], block: Block) -> tuple[Block, ...]:
    """With `block`, newer than all: neighbours become one, and so do the oldest of too many."""
    if blocks and blocks[-1].last + 1 == block.first:
        return (*blocks[:-1], Block(blocks[-1].first, block.last))
    if len(blocks) >= MAX_RANGES:
        blocks = (Block(blocks[0].first, blocks[1].last), *blocks[2:])
    return (*blocks, block)


def after(number: int) -> Block:
    """What is left of the block that `number`, used already, is in; a whole one when that was its last."""
    return Block(number + 1, (number // BLOCK + 1) * BLOCK)
