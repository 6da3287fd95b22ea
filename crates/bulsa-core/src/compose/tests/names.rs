use super::*;

const FILE: &str = "services: {a: {command: x}}\n";

fn named(shop: &Shop, text: &str) -> String {
    let loaded = shop.load(text);
    loaded.spec.map_or_else(|| loaded.diagnostics.to_string(), |spec| spec.project)
}

#[test]
fn the_name_comes_from_the_flag_then_the_environment_then_the_file_then_the_directory() {
    let with_name = format!("name: ${{N:-In File}}\n{FILE}");
    assert_eq!(named(&Shop::new(), FILE), "shop");
    assert_eq!(named(&Shop::new(), &with_name), "infile");
    assert_eq!(named(&Shop::new().env("N", "other"), &with_name), "other");
    let from_env = Shop::new().dotenv("COMPOSE_PROJECT_NAME=dot\n");
    assert_eq!(named(&from_env, &with_name), "dot");
    let from_env = from_env.env("COMPOSE_PROJECT_NAME", "shell");
    assert_eq!(named(&from_env, &with_name), "shell");
    assert_eq!(named(&Shop { name: Some("flag".to_owned()), ..from_env }, &with_name), "flag");
    assert_eq!(named(&Shop::new().env("COMPOSE_PROJECT_NAME", ""), FILE), "shop");
}

#[test]
fn the_file_may_use_the_projects_name() {
    let shop = Shop { name: Some("flag".to_owned()), ..Shop::new() };
    assert_eq!(shop.web("working_dir: /data/${COMPOSE_PROJECT_NAME}").working_dir, "/data/flag");
}

#[test]
fn a_bad_name_is_an_error() {
    let flag = Shop { name: Some("Shop".to_owned()), ..Shop::new() };
    insta::assert_snapshot!(named(&flag, FILE), @r#"
    error: the project name "Shop", given by -p, can't be used
      expected: a-z, 0-9, `-` and `_`, starting with a letter or digit, at most 63 characters
    "#);
    insta::assert_snapshot!(named(&Shop::new(), "name: 한국\nservices: {a: {command: x}}\n"), @r#"
    compose.yaml:1:7: error: name: "한국" is no name for a project
      expected: a-z, 0-9, `-` and `_`, starting with a letter or digit, at most 63 characters
    "#);
    insta::assert_snapshot!(named(&Shop::new(), "name: 5\nservices: {a: {command: x}}\n"), @r#"
    compose.yaml:1:7: error: name is the number 5
      expected: text
      hint: put it in quotes: "5"
    "#);
}
