//! What `demo --auto` has instead of a browser: a cookie, the pages, and the forms that are on them.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header;

/// Time between two looks at a page.
const LOOK: Duration = Duration::from_millis(50);

/// A signed-in visitor of the console.
pub(crate) struct Browser {
    client: reqwest::Client,
    base: String,
    cookie: String,
}

/// A form as it stands on a page.
#[derive(Debug, PartialEq, Eq)]
struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Browser {
    /// Follows a one-time link and sends the form behind it.
    pub(crate) async fn sign_in(link: &str) -> anyhow::Result<Self> {
        let client = super::http_client(Duration::from_secs(10))?;
        let (base, _) = link.split_once("/login").context("the link has no /login")?;
        let page = client.get(link).send().await?.text().await?;
        let form = forms(&page).into_iter().next().context("the sign-in page has no form")?;
        let answer = client.post(format!("{base}{}", form.action)).header(header::ORIGIN, base).form(&form.fields).send().await?;
        let cookie = answer.headers().get(header::SET_COOKIE).and_then(|value| value.to_str().ok());
        let cookie = cookie.and_then(|value| value.split(';').next()).context("no session cookie came")?.to_owned();
        Ok(Self { client, base: base.to_owned(), cookie })
    }

    /// Loads a page again and again until `text` is on it.
    pub(crate) async fn wait_for(&self, path: &str, text: &str) -> anyhow::Result<String> {
        let started = std::time::Instant::now();
        loop {
            let answer = self.client.get(format!("{}{path}", self.base)).header(header::COOKIE, &self.cookie).send().await?;
            let page = answer.text().await?;
            if page.contains(text) {
                return Ok(page);
            }
            if started.elapsed() > Duration::from_secs(15) {
                bail!("{text:?} did not come on {path}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends the form of a page whose button does `act`.
    pub(crate) async fn press(&self, page: &str, act: &str) -> anyhow::Result<()> {
        let wanted = ("act".to_owned(), act.to_owned());
        let form =
            forms(page).into_iter().find(|form| form.fields.contains(&wanted)).with_context(|| format!("there is no form for {act}"))?;
        let request = self.client.post(format!("{}{}", self.base, form.action)).form(&form.fields);
        let answer = request.header(header::COOKIE, &self.cookie).header(header::ORIGIN, &self.base).send().await?;
        if !answer.status().is_redirection() {
            bail!("the form was answered with {}: {}", answer.status(), answer.text().await.unwrap_or_default());
        }
        Ok(())
    }
}

/// The forms of one of our own pages: their hidden fields are all that they need.
fn forms(page: &str) -> Vec<Form> {
    let mut found = Vec::new();
    for part in page.split("<form ").skip(1) {
        let Some((form, _)) = part.split_once("</form>") else { continue };
        let Some(action) = attribute(form, "action") else { continue };
        let inputs = form.split("<input ").skip(1).filter(|input| input.contains("type=\"hidden\""));
        let fields = inputs.filter_map(|input| {
            let tag = input.split('>').next()?;
            Some((attribute(tag, "name")?, attribute(tag, "value")?))
        });
        found.push(Form { action, fields: fields.collect() });
    }
    found
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| unescape(value))
}

/// The timeline of an incident's page, a line an entry.
pub(crate) fn timeline(page: &str) -> Vec<String> {
    let Some((_, list)) = page.split_once("<ol class=\"timeline\">") else { return Vec::new() };
    let list = list.split("</ol>").next().unwrap_or_default();
    let entry = |item: &str| {
        let time = item.split_once('>').and_then(|(_, rest)| rest.split_once("<time")).and_then(|(_, rest)| rest.split_once('>'));
        let time = time.and_then(|(_, rest)| rest.split_once("</time>")).map(|(time, _)| time).unwrap_or_default();
        let text = item.split_once("<div>").and_then(|(_, rest)| rest.split_once("</div>")).map(|(text, _)| text).unwrap_or_default();
        format!("{}  {}", unescape(time), unescape(text))
    };
    list.split("<li ").skip(1).map(entry).collect()
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_its_address_and_its_hidden_fields() {
        let page =
            r#"<form method="post" action="/a?b=1&amp;c=2"><input type="hidden" name="csrf" value="x&quot;y"><input name="reason"></form>"#;
        let form = Form { action: "/a?b=1&c=2".to_owned(), fields: vec![("csrf".to_owned(), "x\"y".to_owned())] };
        assert_eq!(forms(page), [form]);
    }

    #[test]
    fn a_timeline_is_read_line_by_line() {
        let page = r#"<ol class="timeline"><li class="run" id="entry-1"><time datetime="t" title="t">10:00:00 UTC</time><div>a &lt;b&gt;</div></li></ol>"#;
        assert_eq!(timeline(page), ["10:00:00 UTC  a <b>"]);
    }
}
