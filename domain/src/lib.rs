//! The vocabulary of Watchkeeper, its state machines and its decisions: pure functions of what is given to them.
//! Nothing here reads a clock, a file, an environment variable or a socket.

pub mod act;
pub mod action;
pub mod aging;
pub mod alert;
pub mod announcement;
pub mod approval;
pub mod audit;
pub mod button;
pub mod canonical;
pub mod card;
pub mod chat;
pub mod composing;
pub mod duration;
pub mod event;
pub mod expr;
pub mod id;
pub mod inbox;
pub mod incident;
pub mod job;
pub mod lifecycle;
pub mod matcher;
pub mod order;
pub mod permission;
pub mod plan;
pub mod planning;
pub mod printed;
pub mod redact;
pub mod route;
pub mod rules;
pub mod run;
pub mod template;
pub mod text;
pub mod time;
pub mod timeline;
