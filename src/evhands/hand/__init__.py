"""The hand: skeleton and joint orders, hand models, the open hand, the rasteriser."""
