//! A chat that remembers.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::act::{ActOutcome, Place, ReplyTo};
use domain::card::{Card, Message};
use domain::chat::{Capabilities, Chat, ChatError, Posting};
use store::Store;

use super::Script;

/// A chat that remembers, and takes no card of an incident that is not stored.
pub(super) struct Room(pub(super) Arc<Mutex<Script>>, pub(super) Store);

#[async_trait]
impl Chat for Room {
    fn platform(&self) -> &'static str {
        "slack"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { edit: true, buttons: true, threads: true, ephemeral: true, keyed_posts: false }
    }

    fn post_card<'a>(&'a self, channel: &str, card: &Card, delivery: &str) -> Posting<'a> {
        let (place, card, delivery) =
            (Place { channel: channel.to_owned(), message: format!("m{}", card.number) }, card.clone(), delivery.to_owned());
        self.0.lock().unwrap().drawn += 1;
        Box::pin(async move {
            self.0.lock().unwrap().call()?;
            self.0.lock().unwrap().posts.push(delivery);
            assert!(self.1.read().await.unwrap().incident(card.incident).await.unwrap().is_some(), "nobody hears of what is not stored");
            let mut script = self.0.lock().unwrap();
            script.cards.push(card);
            if script.answers_lost > 0 {
                script.answers_lost -= 1;
                return Err(ChatError::Ambiguous("the connection broke".to_owned()));
            }
            Ok(place)
        })
    }

    async fn update_card(&self, at: &Place, card: &Card) -> Result<(), ChatError> {
        let mut script = self.0.lock().unwrap();
        script.call()?;
        script.cards.push(card.clone());
        script.edited_at.push(at.clone());
        Ok(())
    }

    async fn post_thread(&self, _at: &Place, message: &Message, _delivery: &str) -> Result<(), ChatError> {
        let mut script = self.0.lock().unwrap();
        script.call()?;
        script.thread.extend(message.text.lines().map(str::to_owned));
        Ok(())
    }

    async fn post_message(&self, channel: &str, message: &Message, delivery: &str) -> Result<Place, ChatError> {
        let mut script = self.0.lock().unwrap();
        script.call()?;
        script.messages.push(message.clone());
        Ok(Place { channel: channel.to_owned(), message: delivery.to_owned() })
    }

    async fn reply(&self, _to: &ReplyTo, outcome: &ActOutcome) -> Result<(), ChatError> {
        let mut script = self.0.lock().unwrap();
        script.call()?;
        script.replies.push(outcome.clone());
        Ok(())
    }

    async fn find_post(&self, channel: &str, delivery: &str) -> Result<Option<Place>, ChatError> {
        let mut script = self.0.lock().unwrap();
        script.call()?;
        script.looks += 1;
        let found = script.posts.iter().any(|posted| posted == delivery);
        Ok(found.then(|| Place { channel: channel.to_owned(), message: "m1".to_owned() }))
    }

    async fn probe(&self) -> Result<String, ChatError> {
        Ok("fine".to_owned())
    }
}
