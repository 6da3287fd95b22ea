//! HTTP/1.1 as it stands on the wire: heads, framing, chunks, buffers.
//!
//! Owns: what a message's bytes mean, and nothing of what is done with it. Never: does I/O but fill and empty buffers;
//! repairs anything: what can be read in two ways is refused.
//!
//! A head's grammar is [`httparse`]'s, which hyper uses too. What is ours: where a head ends (lines end in CRLF and
//! nothing else), how long a body is ([`framing`]), and the chunked coding ([`chunked`]). A message is never passed on as
//! it was framed: its fields are copied without those that frame it, and it is framed anew.

pub(crate) mod buffer;
pub(crate) mod chunked;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod head;
