//! Handlers, jobs and a real store together, under a clock that moves only when told; actions and chat are small stand-ins that remember.

mod acts;
mod at_once;
mod crowd;
mod deciding;
mod incidents;
mod lifecycle;
mod outages;
mod races;
mod remedies;
mod set_back;
mod silence;
mod unknown;
mod world;
