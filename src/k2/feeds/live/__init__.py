"""What all live venues share: connections that are kept, holes that are filled, frames to rows."""
