//! The gateway on a real store: most tests call the router, those about sockets serve it.

mod api;
mod chat;
mod console;
mod ingest;
mod limits;
mod ops;
mod signed;
mod signed_forms;
mod socket;
mod stop;
mod tokens;
mod world;
