//! A person at the console without a browser: signs in by a link, loads pages, sends the forms that are on them.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::{StatusCode, header};

use super::{SOON, World};
use crate::eventually;

/// A signed-in person.
pub struct Console {
    client: reqwest::Client,
    base: String,
    cookie: String,
}

/// A form as it stands on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where it goes.
    pub action: String,
    /// Its hidden fields.
    pub fields: Vec<(String, String)>,
}

impl World {
    /// A one-time link, made by the program.
    ///
    /// # Errors
    /// If the program makes none.
    pub async fn login_link(&self, name: &str) -> anyhow::Result<String> {
        let config = self.config();
        let cmd = self.command(&["login-link", name, "--config"]).arg(&config);
        Ok(cmd.run(SOON).await?.ok()?.trim().to_owned())
    }

    /// Signs `name` in to the console by such a link.
    ///
    /// # Errors
    /// If the console does not let them in.
    pub async fn console(&self, name: &str) -> anyhow::Result<Console> {
        let link = self.login_link(name).await?;
        let client = self.http().clone();
        let page = client.get(&link).send().await?.error_for_status()?.text().await?;
        let form = forms(&page).into_iter().next().context("the sign-in page has no form")?;
        let base = self.url();
        let post = client.post(format!("{base}{}", form.action)).header(header::ORIGIN, &base).form(&form.fields);
        let answer = post.send().await?;
        let cookie = answer.headers().get(header::SET_COOKIE).and_then(|value| value.to_str().ok());
        let cookie = cookie.and_then(|value| value.split(';').next()).map(str::to_owned);
        let cookie = cookie.with_context(|| format!("no session cookie came with {}", answer.status()))?;
        Ok(Console { client, base, cookie })
    }
}

impl Console {
    /// A page.
    ///
    /// # Errors
    /// If it does not come.
    pub async fn page(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.client.get(format!("{}{path}", self.base)).header(header::COOKIE, &self.cookie).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{path} was answered with {}", answer.status());
        Ok(answer.text().await?)
    }

    /// A page once it holds `text`.
    ///
    /// # Errors
    /// If it does not within `within`.
    pub async fn wait_for(&self, path: &str, text: &str, within: Duration) -> anyhow::Result<String> {
        eventually(within, async || {
            let page = self.page(path).await?;
            ensure!(page.contains(text), "{text:?} is not on {path}");
            Ok(page)
        })
        .await
    }

    /// Sends a form with further fields; gives status and text of the answer.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn send(&self, form: &Form, more: &[(&str, &str)]) -> anyhow::Result<(StatusCode, String)> {
        let typed = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let fields: Vec<(String, String)> = form.fields.iter().cloned().chain(typed).collect();
        let post = self.client.post(format!("{}{}", self.base, form.action)).header(header::COOKIE, &self.cookie);
        let answer = post.header(header::ORIGIN, &self.base).form(&fields).send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Presses the button of an incident's page that does `act`.
    ///
    /// # Errors
    /// If there is no such button, or it is refused.
    pub async fn press(&self, path: &str, act: &str, more: &[(&str, &str)]) -> anyhow::Result<()> {
        let page = self.page(path).await?;
        let wanted = ("act".to_owned(), act.to_owned());
        let form = forms(&page).into_iter().find(|form| form.fields.contains(&wanted));
        let form = form.with_context(|| format!("there is no form for {act} on {path}"))?;
        let (status, text) = self.send(&form, more).await?;
        ensure!(status.is_redirection(), "{act} was answered with {status}: {text}");
        Ok(())
    }
}

/// The forms of a page.
pub fn forms(page: &str) -> Vec<Form> {
    let parts = page.split("<form ").skip(1).filter_map(|part| part.split_once("</form>"));
    let read = |form: &str| {
        let inputs = form.split("<input ").skip(1).filter_map(|input| input.split('>').next());
        let hidden = inputs.filter(|tag| tag.contains("type=\"hidden\""));
        let fields = hidden.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?))).collect();
        Some(Form { action: attribute(form, "action")?, fields })
    };
    parts.filter_map(|(form, _)| read(form)).collect()
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    let value = rest.split_once('"')?.0;
    Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}
